"""From a block file into a socket: sendfile or a mapping, and hints where pages are on the disk.

A process sends ranges of 8 MiB and 64 KiB of block files (written by 2 MiB) to one connection on
loopback. Hot: GB/s and the server's CPU-s/GiB. Cold: the file's pages are dropped before each range
(posix_fadvise DONTNEED, on files of our own); ms until the range is received. A hint is
posix_fadvise WILLNEED over the whole range, which is what readahead(2) does too, or
MADV_POPULATE_READ.
"""

from __future__ import annotations

import mmap
import os
import random
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import MIB, Figure, cpu_seconds, forked, interleaved
from benchmarks.rawlane import receive_exactly

FILE_BYTES, FILE_COUNT, WRITE_BYTES = 8 * MIB, 16, 2 * MIB
SIZES = {"8 MiB": 8 * MIB, "64 KiB": 64 << 10}
HOT_BYTES, COLD_COUNT = 256 * MIB, 24
POPULATE_READ = 22  # MADV_POPULATE_READ
_REQUEST = struct.Struct("!IIQQ")
Way = Callable[[socket.socket, int, mmap.mmap, int, int], None]


def _sendfile(sock: socket.socket, file: int, _: mmap.mmap, start: int, left: int) -> None:
    while left:
        sent = os.sendfile(sock.fileno(), file, start, min(left, MIB))
        start, left = start + sent, left - sent


def _from_mapping(sock: socket.socket, _: int, mapped: mmap.mmap, start: int, left: int) -> None:
    with memoryview(mapped) as view:
        while left:
            sent = sock.send(view[start : start + min(left, MIB)])
            start, left = start + sent, left - sent


def _hinted(sock: socket.socket, file: int, mapped: mmap.mmap, start: int, left: int) -> None:
    os.posix_fadvise(file, start, left, os.POSIX_FADV_WILLNEED)
    _sendfile(sock, file, mapped, start, left)


def _hinted_mapping(
    sock: socket.socket, file: int, mapped: mmap.mmap, start: int, left: int
) -> None:
    os.posix_fadvise(file, start, left, os.POSIX_FADV_WILLNEED)
    _from_mapping(sock, file, mapped, start, left)


def _populated(sock: socket.socket, file: int, mapped: mmap.mmap, start: int, left: int) -> None:
    mapped.madvise(POPULATE_READ, start, left)
    _from_mapping(sock, file, mapped, start, left)


WAYS: dict[str, Way] = {
    "sendfile": _sendfile,
    "send from a mapping": _from_mapping,
    "WILLNEED, sendfile": _hinted,
    "WILLNEED, send from a mapping": _hinted_mapping,
    "MADV_POPULATE_READ, send from a mapping": _populated,
}
HOT = ("sendfile", "send from a mapping")


def _serve(listener: socket.socket, names: list[Path]) -> None:
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # as the lane on one host
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 128 << 10)
    files = [os.open(name, os.O_RDONLY) for name in names]
    mapped = [mmap.mmap(file, FILE_BYTES, prot=mmap.PROT_READ) for file in files]
    ways = list(WAYS.values())
    request = memoryview(bytearray(_REQUEST.size))
    while True:
        receive_exactly(sock, request)
        way, number, start, length_bytes = _REQUEST.unpack(request)
        if not length_bytes:  # before the clock runs: forget the pages
            mapped[number].madvise(mmap.MADV_DONTNEED)
            os.posix_fadvise(files[number], 0, 0, os.POSIX_FADV_DONTNEED)
            sock.sendall(b"1")
            continue
        ways[way](sock, files[number], mapped[number], start, length_bytes)


class _Reader:
    """Asks for ranges; keeps what the server's CPU was."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._sock = sock
        self._pid = pid
        self._view = memoryview(bytearray(FILE_BYTES))
        self.cpu: dict[str, list[float]] = {}

    def _ask(self, way: str, number: int, start: int, length_bytes: int) -> float:
        began = time.perf_counter()
        self._sock.sendall(_REQUEST.pack(list(WAYS).index(way), number, start, length_bytes))
        receive_exactly(self._sock, self._view[: length_bytes or 1])
        return time.perf_counter() - began

    def hot(self, size_bytes: int, key: str, way: str) -> float:
        """GB/s."""
        cpu, seconds, count = cpu_seconds([self._pid]), 0.0, HOT_BYTES // size_bytes
        for number in range(count):
            start = number * size_bytes % FILE_BYTES
            seconds += self._ask(
                way, number * size_bytes // FILE_BYTES % FILE_COUNT, start, size_bytes
            )
        used = cpu_seconds([self._pid]) - cpu
        self.cpu.setdefault(key, []).append(used / (HOT_BYTES / (1 << 30)))
        return HOT_BYTES / seconds / 1e9

    def cold(self, size_bytes: int, way: str) -> float:
        """Median ms of a range, at places that follow from nothing."""
        dice, times = random.Random(size_bytes), []
        for number in range(COLD_COUNT):
            start = dice.randrange(FILE_BYTES // size_bytes) * size_bytes
            self._ask(way, number % FILE_COUNT, 0, 0)
            times.append(self._ask(way, number % FILE_COUNT, start, size_bytes) * 1000)
        return Figure.of(times).median


def run(work: Path, rounds: int) -> dict[str, Any]:
    names = [work / f"block-{number}" for number in range(FILE_COUNT)]
    for name in names:
        with name.open("wb", buffering=0) as file:
            for _ in range(FILE_BYTES // WRITE_BYTES):
                file.write(os.urandom(WRITE_BYTES))
            os.fsync(file.fileno())  # only clean pages can be dropped
    figures: dict[str, Any] = {}
    with (
        forked(partial(_serve, names=names)) as (address, pid),
        socket.create_connection(address) as sock,
    ):
        reader = _Reader(sock, pid)
        for size, size_bytes in SIZES.items():
            found = interleaved(
                {way: partial(reader.hot, size_bytes, f"{size}, {way}", way) for way in HOT}, rounds
            )
            for way, values in found.items():
                figures[f"hot, {size}, {way}, GB/s"] = Figure.of(values).as_json()
                used = Figure.of(reader.cpu[f"{size}, {way}"][1:])
                figures[f"hot, {size}, {way}, server CPU-s/GiB"] = used.as_json()
        for size, size_bytes in SIZES.items():
            found = interleaved(
                {way: partial(reader.cold, size_bytes, way) for way in WAYS}, rounds
            )
            for way, values in found.items():
                figures[f"cold, {size}, {way}, ms"] = Figure.of(values).as_json()
    return figures
