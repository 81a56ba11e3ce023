"""A connection from this node to another member's lane: Hello said, Welcome heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cachesvc.membership.cluster import Cluster
from cachesvc.wire import codec
from cachesvc.wire.frame import (
    PREFIX_BYTES,
    PROTOCOL_VERSION,
    Kind,
    Prefix,
    encode,
    parse_prefix,
)
from cachesvc.wire.v1 import cluster_pb2

Greeted = tuple[cluster_pb2.Welcome, asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def greeting(
    cluster: Cluster, address: str, *, introducing: bool = False
) -> AsyncIterator[Greeted]:
    """The Welcome, whatever it says, and the connection. introducing: say that we are a member.

    Raises: OSError, asyncio.IncompleteReadError, ProtocolError.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        hello = cluster_pb2.HelloRequest(
            protocol_version=PROTOCOL_VERSION,
            token=cluster.token,
            client_id=f"node {cluster.me.node_id}",
            member=codec.pack_member(cluster.me) if introducing else None,
        )
        writer.write(encode(Kind.HELLO, hello.SerializeToString()))
        _, header = await receive(reader)
        yield codec.parse(cluster_pb2.Welcome, header), reader, writer
    finally:
        writer.close()


async def receive(reader: asyncio.StreamReader) -> tuple[Prefix, bytes]:
    """The next frame: its prefix and header."""
    prefix = parse_prefix(await reader.readexactly(PREFIX_BYTES))
    return prefix, await reader.readexactly(prefix.header_bytes)
