"""The ceiling of sockets: a server that does nothing but sendfile.

`python -m benchmarks.sendfile_server ROOT PORT`. A request is 128 bytes, key, start and length; the
answer is the bare bytes. One thread for each connection. Prints `ready`.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from functools import cache
from pathlib import Path

from benchmarks.rawlane import receive_exactly

REQUEST = struct.Struct("!112sQQ")


class RawSendfile:
    """The client: one connection, received into a ready buffer."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_into(self, key: str, start: int, view: memoryview) -> None:
        self.sock.sendall(REQUEST.pack(key.encode(), start, len(view)))
        receive_exactly(self.sock, view)

    def close(self) -> None:
        self.sock.close()


def _serve(sock: socket.socket, open_key: object) -> None:
    assert callable(open_key)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = bytearray(REQUEST.size)
    with sock:
        while True:
            try:
                receive_exactly(sock, memoryview(request))
                key, start, left = REQUEST.unpack(request)
                file = open_key(key.rstrip(b"\0").decode())
                while left:
                    sent = os.sendfile(sock.fileno(), file, start, left)
                    start, left = start + sent, left - sent
            except ConnectionError:
                return


def main() -> None:
    root = Path(sys.argv[1])

    @cache
    def open_key(key: str) -> int:
        return os.open(root / key, os.O_RDONLY)

    listening = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=256)
    print("ready", flush=True)
    while True:
        sock, _ = listening.accept()
        threading.Thread(target=_serve, args=(sock, open_key), daemon=True).start()


if __name__ == "__main__":
    main()
