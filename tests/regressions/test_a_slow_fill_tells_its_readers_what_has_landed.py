"""Bug: what had landed of a fill was told in steps of bytes alone. With an origin of 1 MB/s a
reader of 4 KiB waited up to 1.8 s for bytes that were here, and behind one that stood still for as
long as it did; and an origin that was slower still counted as silent, so that fills which waited
for their turn were refused.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cachesvc.buffers import BufferPool
from cachesvc.core.blocks import BlockRef
from cachesvc.core.errors import OriginError
from cachesvc.core.plan import Extent
from cachesvc.core.types import ByteRange, Geometry, ObjectName, ObjectVersion
from cachesvc.disk.memory import MemoryDisk
from cachesvc.flight import Flight
from cachesvc.landing import Landing
from cachesvc.metrics import Metrics
from cachesvc.origin.base import Sink
from cachesvc.origin.memory import Fault, MemoryOrigin
from cachesvc.store import Store
from tests.integration.s3_origin.servers import (
    DATA,
    ETAG,
    VERSION,
    Request,
    ScriptedServer,
    head_206,
    opened,
)
from tests.sinks import BufferSink
from tests.support import GEOMETRY, NAME, blocks_of, open_rig, pattern, run

PATIENCE_S = 5.0  # of an origin that sends no more until somebody has heard of what it sent


@pytest.mark.parametrize("first_bytes", [70_000, 300_000])
def test_what_has_come_lands_before_more_comes(first_bytes: int) -> None:
    sink = BufferSink(len(DATA))
    heard: list[bool] = []

    def script(request: Request, connected: socket.socket) -> bool:
        connected.sendall(head_206(request) + DATA[:first_bytes])
        while sink.count_bytes < first_bytes and sink.first.wait(PATIENCE_S):
            sink.first.clear()
        heard.append(sink.count_bytes == first_bytes)
        connected.sendall(DATA[first_bytes:])
        return True

    async def body() -> None:
        with ScriptedServer(script) as server:
            async with opened(server.url) as (origin, _):
                await origin.fetch(VERSION, ByteRange(0, len(DATA)), sink)

    run(body)
    assert heard == [True]
    assert sink.buffer == DATA


class _Stopping(MemoryOrigin):
    """Lands some pages at once, one by one, and breaks off when it is told to."""

    def __init__(self, page_count: int) -> None:
        super().__init__()
        self.break_off = asyncio.Event()
        self._page_count = page_count

    async def _land(
        self, body: memoryview, name: ObjectName, sink: Sink, _fault: Fault | None
    ) -> None:
        for page in range(self._page_count):
            start, end = page * GEOMETRY.page_bytes, (page + 1) * GEOMETRY.page_bytes
            sink.view[start:end] = body[start:end]
            sink.landed(end)
        await self.break_off.wait()
        raise OriginError(f"{name}: cut")


@asynccontextmanager
async def _fill(origin: MemoryOrigin) -> AsyncIterator[Flight]:
    """A fill of a whole block under way, held until the end."""
    async with open_rig(origin=origin) as rig:
        block = blocks_of(origin.put(NAME, pattern(GEOMETRY.block_bytes)))[0]
        hold = rig.coalescer.join(block, block.all_pages)
        yield hold.flights[0]
        hold.close()


def test_readers_hear_of_what_has_landed_while_the_origin_stands_still() -> None:
    async def body() -> None:
        origin = _Stopping(page_count=7)
        async with _fill(origin) as flight:
            await asyncio.wait_for(flight.wait(6), PATIENCE_S)
            origin.break_off.set()
            with pytest.raises(OriginError, match="cut"):
                await flight.wait(7)

    run(body)


def test_what_had_landed_when_a_fill_broke_off_is_served() -> None:
    async def body() -> None:
        origin = _Stopping(page_count=3)
        origin.break_off.set()
        async with _fill(origin) as flight:
            await flight.wait(2)
            assert flight.landed_pages == 3
            with pytest.raises(OriginError, match="cut"):
                await flight.wait(3)

    run(body)


def test_who_wants_more_pages_goes_on_with_those_that_are_here() -> None:
    async def body() -> None:
        async with _fill(_Stopping(page_count=3)) as flight:
            await asyncio.wait_for(flight.wait(0, 7), PATIENCE_S)
            assert flight.landed_pages == 3
            assert not flight.done

    run(body)


@pytest.mark.parametrize(
    ("wanted_page", "expected"),
    [(None, [8, 16, 24, 32]), (0, [1, 9, 17, 25, 32]), (11, [3, 11, 19, 27, 32])],
)
def test_progress_is_told_to_who_waits_and_by_steps(
    wanted_page: int | None, expected: list[int]
) -> None:
    geometry = Geometry()
    block = BlockRef(ObjectVersion(NAME, ETAG, geometry.block_bytes), 0, geometry)
    flight, told = Flight(Extent(block, 0, block.page_count)), list[int]()
    if wanted_page is not None:
        flight.wanted_page = wanted_page
    store = Store([MemoryDisk()], 1 << 30, Metrics())
    landing = Landing(
        flight, store, BufferPool(), lambda work, sums: work(sums), geometry.block_bytes,
        lambda: told.append(flight.landed_end >> 18),
    )  # fmt: skip
    for quarters in range(1, 33):
        landing.landed(quarters << 18)
    assert told == expected
