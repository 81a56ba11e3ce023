"""A node whose lanes send otherwise: SEND_BUFFER_BYTES where both ends are on one host, 0 for the
kernel's own, on TCP and on Unix sockets; with FROM_MAPPING, files from a mapping, no sendfile.

`python -m benchmarks.socket_node node ...` takes the options of `cachesvc node`.
"""

from __future__ import annotations

import mmap
import os
import socket
from functools import cache

from cachesvc import cli, lane_connection, lane_sending, lane_socket
from cachesvc.answer import FilePart
from cachesvc.pins import OpenBlock


def _untuned(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, lane_socket._UNSENT_BYTES)


@cache
def _mapped(_: OpenBlock, file: int) -> memoryview:
    return memoryview(mmap.mmap(file, 0, prot=mmap.PROT_READ))


def _push_mapped(out: int, part: FilePart, budget: int) -> int:
    view = _mapped(part.pin.held, part.pin.fileno())
    sent = os.write(out, view[part.offset : part.offset + min(part.length_bytes, budget)])
    part.offset += sent
    part.length_bytes -= sent
    return sent


def main() -> None:
    size_bytes = int(os.environ["SEND_BUFFER_BYTES"])
    if size_bytes:
        lane_socket._SAME_HOST_BUFFER_BYTES = size_bytes
    else:
        vars(lane_connection)["tune"] = _untuned
    if os.environ.get("FROM_MAPPING"):
        vars(lane_sending)["_push_file"] = _push_mapped
    cli.main()


if __name__ == "__main__":
    main()
