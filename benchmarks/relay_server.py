"""The ceilings of cold fills: relays that do only what no cache on a disk can leave out.

`python -m benchmarks.relay_server FOLDER ORIGIN PORT CAPACITY_BYTES [checksums]`. A request is that
of sendfile_server.py. Its bytes are received from the origin, written to a file and sent on as they
come, by one thread for each reader with a connection of its own to the origin: no index, nobody who
waits for the same bytes. What is beyond the capacity is removed, oldest first. `checksums`: each
page and its parts are hashed before they are sent, as the node does, and kept nowhere. Prints
`ready`.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
from collections import deque
from pathlib import Path

from benchmarks.job import split
from benchmarks.rawlane import receive_exactly
from benchmarks.sendfile_server import REQUEST
from cachesvc.core import parts
from cachesvc.core.format import checksum
from cachesvc.core.types import Geometry

_PAGE_BYTES = Geometry().page_bytes
_PIECE_BYTES = 256 << 10  # received and sent at once, as the first of the node's fills
_RUN_BYTES = 2 << 20  # written at once, while the processor has it in its cache
_HEAD_BYTES = 4096


class _Files:
    """Files of what went through, as many as there is room for."""

    def __init__(self, folder: Path, capacity_bytes: int) -> None:
        self._folder = folder
        self._capacity_bytes = capacity_bytes
        self._kept: deque[tuple[Path, int]] = deque()
        self._kept_bytes = 0
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def new(self, size_bytes: int) -> int:
        """An open file, empty; it takes the place of the oldest ones."""
        path = self._folder / str(next(self._numbers))
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        gone = []
        with self._lock:
            self._kept.append((path, size_bytes))
            self._kept_bytes += size_bytes
            while self._kept_bytes > self._capacity_bytes:
                oldest, oldest_bytes = self._kept.popleft()
                self._kept_bytes -= oldest_bytes
                gone.append(oldest)
        for oldest in gone:
            oldest.unlink()
        return file


def _relay(
    reader: socket.socket, origin: socket.socket, host: str, files: _Files, checksums: bool
) -> None:
    request, room = bytearray(REQUEST.size), memoryview(bytearray(_RUN_BYTES))
    with reader, origin:
        while True:
            try:
                receive_exactly(reader, memoryview(request))
            except ConnectionError:
                return
            key, start, length = REQUEST.unpack(request)
            _ask(origin, host, key.rstrip(b"\0").decode(), start, start + length - 1)
            file = files.new(length)
            try:
                for done in range(0, length, _RUN_BYTES):
                    run = room[: min(_RUN_BYTES, length - done)]
                    _pass_on(origin, reader, run, checksums)
                    os.pwrite(file, run, done)
            finally:
                os.close(file)


def _pass_on(
    origin: socket.socket, reader: socket.socket, run: memoryview, checksums: bool
) -> None:
    for start in range(0, len(run), _PIECE_BYTES):
        piece = run[start : start + _PIECE_BYTES]
        if origin.recv_into(piece, len(piece), socket.MSG_WAITALL) < len(piece):
            raise ConnectionError("the origin hung up")
        if checksums:
            _hash(piece)
        reader.sendall(piece)


def _hash(piece: memoryview) -> None:
    for start in range(0, len(piece), _PAGE_BYTES):
        page = piece[start : start + _PAGE_BYTES]
        checksum(page)
        parts.of_page(page, parts.part_bytes_of(_PAGE_BYTES))


def _ask(origin: socket.socket, host: str, key: str, first: int, last: int) -> None:
    """Ask for bytes `first` to `last`, and take the answer's head."""
    text = f"GET /{key} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={first}-{last}\r\n\r\n"
    origin.sendall(text.encode())
    while b"\r\n\r\n" not in (head := origin.recv(_HEAD_BYTES, socket.MSG_PEEK)):
        if len(head) in (0, _HEAD_BYTES):
            raise ConnectionError(f"the origin said {head[:60]!r}")
    border = head.index(b"\r\n\r\n") + 4
    receive_exactly(origin, memoryview(bytearray(border)))
    if not head.startswith(b"HTTP/1.1 206"):
        raise ConnectionError(f"the origin said {head[:60]!r}")


def main() -> None:
    folder, host = Path(sys.argv[1]), sys.argv[2]
    files, checksums = _Files(folder, int(sys.argv[4])), sys.argv[5:] == ["checksums"]
    listening = socket.create_server(("127.0.0.1", int(sys.argv[3])), backlog=256)
    print("ready", flush=True)
    while True:
        reader, _ = listening.accept()
        origin = socket.create_connection(split(host))
        for one in reader, origin:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        work = reader, origin, host, files, checksums
        threading.Thread(target=_relay, args=work, daemon=True).start()


if __name__ == "__main__":
    main()
