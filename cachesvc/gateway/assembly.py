"""Puts a gateway together over a node's reader.

Rules: what is opened here is closed by the caller's stack, in reverse order.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from cachesvc.core.types import ObjectName
from cachesvc.gateway.auth import Guard
from cachesvc.gateway.fields import FieldTable
from cachesvc.gateway.hits import Hits
from cachesvc.gateway.lookup import Lookup
from cachesvc.gateway.outlet import SendThreads
from cachesvc.gateway.passing import Passing
from cachesvc.gateway.reading import Reading
from cachesvc.gateway.relay import Relay
from cachesvc.gateway.sending import Sending
from cachesvc.gateway.server import Gateway
from cachesvc.gateway.writing import Writing
from cachesvc.membership.cluster import Cluster
from cachesvc.membership.telling import tell_forget
from cachesvc.metrics import Metrics
from cachesvc.origin.access import S3Access
from cachesvc.origin.base import Origin
from cachesvc.reader import Reader
from cachesvc.store import Store


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """domain: for virtual-host style, or "". keys: the clients' secret keys by access key; None:
    nobody has to sign.
    """

    domain: str = ""
    keys: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What of a node the gateway stands on. origin: the object store itself. fields: hears its
    HEADs. access: how to reach it by oneself. ring: the lanes of those who are told of writes;
    None: the cluster's other members.
    """

    cluster: Cluster
    reader: Reader
    store: Store
    origin: Origin
    fields: FieldTable
    access: Callable[[], Awaitable[S3Access]]
    metrics: Metrics
    ring: Callable[[], Sequence[str]] | None = None


async def open_gateway(
    parts: NodeParts, settings: GatewaySettings, listener: socket.socket, exits: AsyncExitStack
) -> Gateway:
    """A gateway that serves the listening socket."""
    stamp = {"Server": "cachesvc", "X-Cache-Node": parts.cluster.me.node_id}
    threads = SendThreads()
    exits.callback(threads.close)
    relay = Relay(parts.access, parts.metrics)
    exits.push_async_callback(relay.close)
    lookup = Lookup(parts.origin, parts.reader.versions, parts.fields)
    sending = Sending(parts.reader, threads)
    reading = Reading(parts.reader, parts.store, lookup, sending, stamp)
    guard = None if settings.keys is None else Guard(settings.keys)
    hits = Hits(parts.reader, lookup, guard, stamp, settings.domain)
    passing = Passing(relay, stamp)

    async def forget(names: Sequence[ObjectName]) -> None:
        for name in names:
            parts.reader.versions.forget_object(name)
        if names:
            await tell_forget(parts.cluster, names, parts.ring and parts.ring())

    gateway = Gateway(
        reading,
        passing,
        Writing(relay, passing, forget),
        relay,
        hits,
        sending,
        guard,
        parts.metrics,
        stamp,
        domain=settings.domain,
    )
    exits.push_async_callback(gateway.stop)
    await gateway.start(listener)
    return gateway
