"""The ceiling of small reads in Python: a server that does only what no checked read can leave out.

`python -m benchmarks.checking_server ROOT PORT`. A request is that of sendfile_server.py. The range
is read from its file, hashed, compared with what its checksum was, and sent with a head of three
numbers, in one send; one epoll loop, an only client waited for in its socket, no versions, no ring,
no eviction, nothing counted. Prints `ready`.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from functools import cache
from pathlib import Path

from xxhash import xxh3_64_intdigest

from benchmarks.rawlane import receive_exactly
from benchmarks.sendfile_server import REQUEST, RawSendfile

HEAD = struct.Struct("!QQQ")  # start, length, checksum
_RECV_BYTES = 4096
_CONVERSATION_S = 0.002  # as in cachesvc/lane_thread.py, which readers cannot import
_RECEIVE_TIMEOUT = struct.pack("ll", 0, 1000)


class RawChecked(RawSendfile):
    """The client: one connection; a head, whose range is compared, and the bytes."""

    def read_into(self, key: str, start: int, view: memoryview) -> None:
        self.sock.sendall(REQUEST.pack(key.encode(), start, len(view)))
        room = memoryview(bytearray(HEAD.size + len(view)))
        receive_exactly(self.sock, room)
        if HEAD.unpack_from(room)[:2] != (start, len(view)):
            raise ConnectionError(f"not bytes [{start}, {start + len(view)})")
        view[:] = room[HEAD.size :]


def serve(root: Path, listening: socket.socket) -> None:
    """Until the process ends."""

    @cache
    def open_key(key: bytes) -> int:
        return os.open(root / key.rstrip(b"\0").decode(), os.O_RDONLY)

    sums: dict[tuple[bytes, int, int], int] = {}

    def answered(reader: socket.socket) -> bool:
        """Whether a request came in time."""
        try:
            request = reader.recv(_RECV_BYTES)
        except BlockingIOError:
            return False
        if len(request) != REQUEST.size:
            epoll.unregister(reader)
            readers.pop(reader.fileno()).close()
            return False
        key, start, length = wanted = REQUEST.unpack(request)
        data = os.pread(open_key(key), length, start)
        found = xxh3_64_intdigest(data)
        if sums.setdefault(wanted, found) != found:
            raise RuntimeError(f"bytes [{start}, {start + length}) of {key!r} have changed")
        reader.sendall(b"".join((HEAD.pack(start, length, found), data)))
        return True

    epoll, readers = select.epoll(), dict[int, socket.socket]()
    epoll.register(listening, select.EPOLLIN)
    while True:
        for number, _ in epoll.poll():
            reader = readers.get(number)
            if reader is None:
                reader, _ = listening.accept()
                reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
                readers[reader.fileno()] = reader
                epoll.register(reader, select.EPOLLIN)
                continue
            until = time.monotonic() + _CONVERSATION_S
            while answered(reader) and len(readers) == 1 and time.monotonic() < until:
                pass  # without epoll, as a lane thread does


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=256)
    print("ready", flush=True)
    serve(Path(sys.argv[1]), listener)
