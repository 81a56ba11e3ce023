"""Closing calls off what flies and what waits, and outlives none of it."""

from __future__ import annotations

import asyncio

import pytest

from cachesvc import buffers
from cachesvc.buffers import MIN_BUFFER_BYTES
from cachesvc.core.errors import Overloaded
from cachesvc.origin.memory import MemoryOrigin
from tests.support import NAME, blocks_of, open_rig, run, soon
from tests.unit.coalescer.sample import ALL, DATA, Gate, flight_of


def test_closing_calls_off_what_flies_and_what_waits() -> None:
    async def body() -> None:
        async with open_rig(max_gets=1, max_buffer_bytes=MIN_BUFFER_BYTES) as rig:
            Gate(rig.origin)
            blocks = blocks_of(rig.origin.put(NAME, DATA))
            holds = [rig.coalescer.join(block, block.all_pages) for block in blocks]
            waits = [asyncio.create_task(flight_of(hold, 0).wait(0)) for hold in holds]
            await soon(lambda: rig.origin.active_count == 1, "one flies")
            await rig.coalescer.close()
            errors = await asyncio.gather(*waits, return_exceptions=True)
            assert [type(error) for error in errors] == [Overloaded] * 6
            for hold in holds:
                hold.close()
            assert len(rig.origin.gets) == 1

    run(body)


def test_closing_does_not_start_what_was_waiting_for_a_buffer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buffers, "MIN_BUFFER_BYTES", 64)

    async def body() -> None:
        async with open_rig(max_gets=9, max_buffer_bytes=1300) as rig:
            Gate(rig.origin)
            blocks = blocks_of(rig.origin.put(NAME, DATA))
            wanted = [(0, ALL), (1, ALL), (2, 0b1)]  # the third would fit beside the first
            holds = [rig.coalescer.join(blocks[index], pages) for index, pages in wanted]
            await soon(lambda: rig.origin.active_count == 1, "one flies")
            await rig.coalescer.close()
            for hold in holds:
                hold.close()
            assert len(rig.origin.gets) == 1

    run(body)


def test_closing_waits_for_flights_that_everybody_has_left() -> None:
    class Stubborn(MemoryOrigin):
        """Takes its time to stop, as a thread in a blocking call does."""

        ended = False

        async def fetch(self, version, wanted, sink):  # type: ignore[no-untyped-def]
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                self.ended = True

    async def body() -> None:
        origin = Stubborn()
        async with open_rig(origin=origin) as rig:
            block = blocks_of(origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            await asyncio.sleep(0)
            hold.close()
            await rig.coalescer.close()
            assert origin.ended

    run(body)
