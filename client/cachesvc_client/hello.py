"""The first words of every connection: who the client is, and what the cluster looks like."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from cachesvc.core.errors import ProtocolError
from cachesvc.core.ring import MemberTable
from cachesvc.core.types import Geometry
from cachesvc.wire import codec
from cachesvc.wire.frame import PROTOCOL_VERSION
from cachesvc.wire.v1 import cluster_pb2


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a node says of itself and its cluster. trouble: what keeps it from its work, or ""."""

    node_id: str
    geometry: Geometry
    vnodes_per_weight: int
    table: MemberTable
    trouble: str = ""


def hello(token: str | None) -> cluster_pb2.HelloRequest:
    """A Hello of this process."""
    return cluster_pb2.HelloRequest(
        protocol_version=PROTOCOL_VERSION,
        token=token or "",
        client_id=f"client {os.getpid()} on {socket.gethostname()}",
    )


def unpack_welcome(message: cluster_pb2.Welcome, who: str) -> Welcome:
    """A Welcome, checked.

    Raises: the error that it carries; ProtocolError if it makes no sense.
    """
    codec.raise_error(message.error)
    if message.protocol_version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"node {who} speaks protocol version {message.protocol_version}, this client"
            f" {PROTOCOL_VERSION}: upgrade the older of them"
        )
    table = codec.unpack_table(message.table)
    vnodes = message.config.vnodes_per_weight
    if not table.members or not 0 < vnodes <= 4096:
        raise ProtocolError(f"node {who} welcomes with no members, or {vnodes} vnodes")
    geometry = codec.unpack_geometry(message.config)
    return Welcome(message.node_id, geometry, vnodes, table, message.trouble)
