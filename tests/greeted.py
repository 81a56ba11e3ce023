"""A client's connection as it is behind its Hello, on a socket with no node at its other end."""

from __future__ import annotations

import socket

from cachesvc_client.connection import Connection, _Patience
from cachesvc_client.pace import Pace


def greeted(sock: socket.socket) -> Connection:
    """To a node of this host."""
    local = sock.family == socket.AF_UNIX
    connection = Connection.__new__(Connection)
    vars(connection).update(
        address="here", local=local, files=[], _sock=sock, _same_host=not local,
        _patience=_Patience("here"), pace=Pace(10),
    )  # fmt: skip
    return connection
