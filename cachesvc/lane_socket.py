"""How the node's end of a lane's connection is set."""

from __future__ import annotations

import socket

# A client whose host is gone is noticed after 90 s of silence.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
# What waits in the kernel to be sent: enough to keep it busy, little enough to be in a processor's
# cache when it leaves (docs/decisions/0009-short-send-queues.md).
_UNSENT_BYTES = 128 << 10
_SAME_HOST_BUFFER_BYTES = 1 << 20


def tune(sock: socket.socket) -> None:
    """A connected socket, TCP or Unix. Raises OSError if it is gone."""
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SAME_HOST_BUFFER_BYTES)
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    if sock.getsockname()[0] == sock.getpeername()[0]:  # there is no network to keep full
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SAME_HOST_BUFFER_BYTES)
