"""No more GETs, buffers and waiting flights than allowed; who is refused holds nothing."""

from __future__ import annotations

import pytest

from cachesvc.buffers import MIN_BUFFER_BYTES
from cachesvc.core.errors import Overloaded
from tests.support import NAME, blocks_of, open_rig, run
from tests.unit.coalescer.sample import ALL, DATA, Gate, flight_of, full_store


def test_no_more_gets_fly_than_allowed() -> None:
    async def body() -> None:
        async with open_rig(max_gets=2) as rig:
            blocks = blocks_of(rig.origin.put(NAME, DATA))
            holds = [rig.coalescer.join(block, block.all_pages) for block in blocks]
            assert rig.coalescer.flight_count == 6
            for hold in holds:
                await flight_of(hold, 0).wait(0)
            for hold in holds:
                hold.close()
            assert rig.origin.peak_count == 2

    run(body)


def test_buffers_take_no_more_than_allowed_and_one_always_may() -> None:
    async def body() -> None:
        limit = 2 * MIN_BUFFER_BYTES + 100
        async with open_rig(max_buffer_bytes=limit, disks=[full_store()]) as rig:
            blocks = blocks_of(rig.origin.put(NAME, DATA))
            holds = [rig.coalescer.join(block, block.all_pages) for block in blocks]
            for hold in holds:
                assert 0 < rig.coalescer.buffer_bytes <= limit
                await flight_of(hold, 0).wait(0)
                memories = [flight.memory for one in holds for flight in one.flights]
                taken_bytes = sum(len(memory) for memory in memories if memory is not None)
                assert 0 < taken_bytes <= rig.coalescer.buffer_bytes
                hold.close()
        async with open_rig(max_buffer_bytes=1) as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            await flight_of(hold, 7).wait(7)
            hold.close()

    run(body)


def test_beyond_the_waiting_limit_readers_hear_overloaded_at_once() -> None:
    async def body() -> None:
        async with open_rig(max_gets=1, max_waiting_count=2) as rig:
            gate = Gate(rig.origin)
            blocks = blocks_of(rig.origin.put(NAME, DATA))
            holds = [rig.coalescer.join(block, ALL) for block in blocks[:3]]
            with pytest.raises(Overloaded, match="another node"):
                rig.coalescer.join(blocks[3], ALL)
            joined = rig.coalescer.join(blocks[2], 0b1)  # what is coming anyway may be joined
            assert joined.began == set()
            gate.opened.set()
            for hold in [*holds, joined]:
                await flight_of(hold, 0).wait(0)
                hold.close()
            assert rig.coalescer.flight_count <= 1

    run(body)


def test_a_join_that_is_refused_holds_nothing() -> None:
    async def body() -> None:
        async with open_rig(max_gets=1, max_waiting_count=1) as rig:
            gate = Gate(rig.origin)
            blocks = blocks_of(rig.origin.put(NAME, DATA))
            flying = rig.coalescer.join(blocks[0], 0b11)
            with pytest.raises(Overloaded):
                rig.coalescer.join(blocks[1], 0b11000011)  # two extents, and room for one
            assert rig.coalescer.flight_count == 1
            gate.opened.set()
            flying.close()

    run(body)
