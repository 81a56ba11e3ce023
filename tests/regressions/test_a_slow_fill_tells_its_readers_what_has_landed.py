"""Bug: what had landed of a fill was told in steps of bytes alone. With an origin of 1 MB/s a
reader of 4 KiB waited up to 1.8 s for bytes that were here, and one that was slower still counted
as silent, so that fills which waited for their turn were refused.
"""

from __future__ import annotations

import socket

import pytest

from cachesvc.buffers import BufferPool
from cachesvc.core.plan import plan
from cachesvc.core.types import ByteRange
from cachesvc.disk.memory import MemoryDisk
from cachesvc.flight import Flight
from cachesvc.landing import STEP_S, Landing
from cachesvc.metrics import Metrics
from cachesvc.store import Store
from tests.integration.s3_origin.servers import (
    DATA,
    VERSION,
    Request,
    ScriptedServer,
    head_206,
    opened,
    run,
)
from tests.sinks import BufferSink
from tests.support import GEOMETRY, NAME, Clock, blocks_of, pattern, version_of

PATIENCE_S = 5.0  # of an origin that sends no more until somebody has heard of what it sent


@pytest.mark.parametrize("first_bytes", [70_000, 300_000])
def test_what_has_come_is_told_before_more_comes(first_bytes: int) -> None:
    sink = BufferSink(len(DATA))
    heard: list[bool] = []

    def script(request: Request, connected: socket.socket) -> bool:
        connected.sendall(head_206(request) + DATA[:first_bytes])
        while sink.count_bytes < first_bytes and sink.first.wait(PATIENCE_S):
            sink.first.clear()
        heard.append(sink.count_bytes == first_bytes)
        connected.sendall(DATA[first_bytes:])
        return True

    async def main() -> None:
        with ScriptedServer(script) as server:
            async with opened(server.url) as (origin, _):
                await origin.fetch(VERSION, ByteRange(0, len(DATA)), sink)

    run(main())
    assert heard == [True]
    assert sink.buffer == DATA


def test_the_loop_hears_of_what_has_landed_for_a_while() -> None:
    data = pattern(GEOMETRY.block_bytes)
    (block,) = blocks_of(version_of(data, NAME))
    (extent,) = plan(block, block.all_pages, 0)
    flight, clock, told = Flight(extent), Clock(), list[int]()
    store = Store([MemoryDisk()], 1 << 20, Metrics(), clock=clock)
    landing = Landing(
        flight, store, BufferPool(), lambda work, sums: work(sums), 1 << 20,
        lambda: told.append(flight.landed_pages), clock,
    )  # fmt: skip
    landing.view[:] = data
    for page in range(1, 9):
        if page in (6, 7):
            clock.now += 2 * STEP_S
        landing.landed(page * GEOMETRY.page_bytes)
    assert told == [1, 2, 4, 6, 7, 8]
