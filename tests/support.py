"""What several test files need: a small geometry, bytes that never repeat, a whole node in memory.

Story: GEOMETRY has blocks of 1 KiB in pages of 128 bytes, so that every border is near. `Rig` is a
node's read path over a MemoryOrigin; leaving it proves that nothing was left behind.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from typer.testing import CliRunner, Result

from cachesvc import logs
from cachesvc.answer import Answer, Segment, take
from cachesvc.cli import app
from cachesvc.coalescer import Coalescer
from cachesvc.core.blocks import BlockRef, cuts
from cachesvc.core.format import CHECKSUM_BYTES, checksum
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion, Source
from cachesvc.disk.base import Disk
from cachesvc.disk.memory import MemoryDisk
from cachesvc.metrics import Metrics
from cachesvc.origin.memory import MemoryOrigin
from cachesvc.readahead import Owns, owns_all
from cachesvc.reader import Reader
from cachesvc.store import Store
from cachesvc.versions import Versions

GEOMETRY = Geometry(block_bytes=1024, page_bytes=128, extent_min_bytes=256, extent_max_bytes=1024)
NAME = ObjectName("bucket", "key")
FILE_BYTES = 8192  # what a block file of GEOMETRY takes: a sector of data, one of trailer
PATIENCE_S = 8.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pattern(length_bytes: int, seed: int = 1) -> bytes:
    """Bytes in which no page, block or object looks like another."""
    return random.Random(seed).randbytes(length_bytes)


def version_of(data: bytes, name: ObjectName = NAME, etag: str = '"v1"') -> ObjectVersion:
    return ObjectVersion(name, etag, len(data))


def blocks_of(version: ObjectVersion, geometry: Geometry = GEOMETRY) -> list[BlockRef]:
    count = -(-version.size_bytes // geometry.block_bytes)
    return [BlockRef(version, index, geometry) for index in range(count)]


def block_data(block: BlockRef, data: bytes) -> bytes:
    """The block's part of its object."""
    return data[block.start : block.start + block.length_bytes]


def store_pages(
    store: Store, block: BlockRef, data: bytes, first_page: int = 0, beyond_page: int = 128
) -> bool:
    """Write pages `[first, beyond)` of the block, whose whole bytes are `data`."""
    page_bytes = block.geometry.page_bytes
    end = min(beyond_page * page_bytes, block.length_bytes)
    pieces = [data[a:b] for a, b in cuts(first_page * page_bytes, end, page_bytes)]
    sums = b"".join(checksum(piece) for piece in pieces)
    return store.write(block, first_page, memoryview(b"".join(pieces)), sums)


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for another thread, to a deadline."""
    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what}"
        pause.wait(0.002)


async def soon(holds: Callable[[], bool], what: str) -> None:
    """Let the loop run until it holds, to a deadline."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what}"
        await asyncio.sleep(0)


def run_cli(*words: str) -> Result:
    """The command line, in this process; without its log, which would outlive captured output, and
    without silencing the client for good.
    """
    client_log = logging.getLogger("cachesvc_client")
    with patch.object(logs, "setup"), patch.object(client_log, "disabled", client_log.disabled):
        return CliRunner().invoke(app, words)


def read_of(*ranges: tuple[int, int | None], verify: bool = False) -> ReadRequest:
    return ReadRequest(NAME, ranges or ((0, None),), verify=verify)


def taken_bytes(segment: Segment, page_bytes: int) -> bytes:
    """The bytes of a segment, checked against its checksums as a receiver does."""
    end = segment.start + segment.length_bytes
    data = bytearray(segment.length_bytes)
    assert segment.read_into(memoryview(data), segment.start) == segment.length_bytes
    if segment.source is not Source.BYPASS:
        pieces = list(cuts(segment.start, end, page_bytes))
        assert len(segment.checksums) == CHECKSUM_BYTES * len(pieces)
        for number, (first, beyond) in enumerate(pieces):
            expected = segment.checksums[number * CHECKSUM_BYTES : (number + 1) * CHECKSUM_BYTES]
            assert checksum(data[first - segment.start : beyond - segment.start]) == expected
    return bytes(data)


async def received(
    answer: Answer, page_bytes: int = GEOMETRY.page_bytes
) -> list[tuple[int, bytes]]:
    """All of an answer, as (start, bytes) a segment; the answer is closed."""
    pieces = []
    try:
        while (segment := await take(answer)) is not None:
            try:
                pieces.append((segment.start, taken_bytes(segment, page_bytes)))
            finally:
                segment.close()
    finally:
        await answer.aclose()
    return pieces


@dataclass
class Rig:
    """A node's read path in memory."""

    origin: MemoryOrigin
    disks: Sequence[Disk]
    metrics: Metrics
    store: Store
    coalescer: Coalescer
    versions: Versions
    reader: Reader
    clock: Clock
    faults: list[str] = field(default_factory=list)

    async def read(self, *ranges: tuple[int, int | None], verify: bool = False) -> bytes:
        answer = await self.reader.read(read_of(*ranges, verify=verify))
        return b"".join(data for _, data in await received(answer, self.reader.geometry.page_bytes))

    def count(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"cachesvc_{metric}", labels) or 0.0


@asynccontextmanager
async def open_rig(
    *,
    geometry: Geometry = GEOMETRY,
    capacity_bytes: int = 1 << 20,
    disks: Sequence[Disk] | None = None,
    origin: MemoryOrigin | None = None,
    revalidate_s: float = 10.0,
    recovered: bool = True,
    readahead_bytes: int = 0,
    owns: Owns = owns_all,
    **coalescing: int,
) -> AsyncIterator[Rig]:
    """A rig; at the end no flight, buffer or descriptor is left, and the loop had no complaint."""
    loop = asyncio.get_running_loop()
    faults: list[str] = []
    loop.set_exception_handler(lambda _loop, context: faults.append(str(context)))
    disks = [MemoryDisk()] if disks is None else disks
    origin = origin or MemoryOrigin(chunk_bytes=100)
    metrics, clock = Metrics(), Clock()
    store = Store(disks, capacity_bytes, metrics, clock=clock)
    if recovered:
        for _ in store.recover():
            pass
    hop = loop.call_soon_threadsafe
    coalescer = Coalescer(
        origin, store, metrics, hop, **({"write_bytes": geometry.extent_min_bytes} | coalescing)
    )
    versions = Versions(origin, revalidate_s, clock)
    reader = Reader(
        origin, store, coalescer, versions, metrics, geometry,
        readahead_bytes=readahead_bytes, owns=owns,
    )  # fmt: skip
    rig = Rig(origin, disks, metrics, store, coalescer, versions, reader, clock, faults)
    try:
        yield rig
        reader.readahead.close()
        await soon(lambda: coalescer.flight_count == 0, "all flights are over")
        assert reader.readahead.under_way_bytes == 0
        assert coalescer.buffer_bytes == 0
        assert origin.active_count == 0
    finally:
        await coalescer.close()
        await origin.close()
        store.close()
    in_memory = [disk for disk in disks if isinstance(disk, MemoryDisk)]
    await soon(lambda: not any(disk.open_count for disk in in_memory), "no file is open")
    assert not faults


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, with a limit on how long it may hang."""

    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await body()

    asyncio.run(limited())
