"""However readers leave a flight, the others get their bytes, and nothing is left behind."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from cachesvc.aside import on_a_thread
from cachesvc.buffers import MIN_BUFFER_BYTES
from cachesvc.core.blocks import BlockRef
from cachesvc.joining import Joiner
from tests.support import NAME, Rig, blocks_of, open_rig, run, soon
from tests.unit.coalescer.sample import ALL, DATA, Gate, flight_of, landed


async def stored(rig: Rig, index: int = 0) -> int:
    """The pages of a block that the store has."""
    pin = rig.store.pin(blocks_of(rig.origin.put(NAME, DATA, '"v"'))[index])
    if pin is None:
        return 0
    with closing(pin):
        return pin.present


async def left_half_way(rig: Rig) -> BlockRef:
    """A block whose only reader has just left, when three pages of eight had landed."""
    block = blocks_of(rig.origin.put(NAME, DATA))[0]
    hold = rig.coalescer.join(block, ALL)
    await flight_of(hold, 2).wait(2)
    hold.close()
    return block


def test_the_last_reader_to_leave_stops_the_flight() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            gate = Gate(rig.origin)
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            one, two = rig.coalescer.join(block, ALL), rig.coalescer.join(block, ALL)
            await soon(lambda: rig.origin.active_count == 1, "the GET is under way")
            one.close()
            await asyncio.sleep(0)
            assert rig.origin.active_count == 1
            two.close()
            await soon(lambda: rig.origin.active_count == 0, "the GET is stopped")
            assert rig.origin.landed_bytes == 0
            gate.opened.set()

    run(body)


def test_what_has_landed_of_a_flight_that_everybody_leaves_is_stored() -> None:
    async def body() -> None:
        async with open_rig(write_bytes=1024) as rig:
            block = await left_half_way(rig)
            assert rig.store.present(block) == 0, "a run is stored when it is whole"
            await soon(lambda: rig.coalescer.flight_count == 0, "the flight has stopped")
            assert rig.store.present(block) & 0b111 == 0b111
            assert rig.store.present(block) != block.all_pages

    run(body)


def test_who_comes_right_after_the_last_one_left_fetches_nothing_again() -> None:
    async def body() -> None:
        async with open_rig(write_bytes=1024) as rig:
            block = await left_half_way(rig)
            joiner = Joiner(rig.store, rig.coalescer, on_a_thread)
            again = await joiner.join(block, ALL)
            await flight_of(again, 7).wait(7)
            again.close()
            first, second = [asked.wanted for asked in rig.origin.gets if asked.wanted]
            assert first.start == 0
            assert second.start >= 3 * 128, "pages that had landed came again"

    run(body)


def test_who_wants_other_pages_does_not_wait_for_a_flight_that_stops() -> None:
    async def body() -> None:
        async with open_rig(write_bytes=1024) as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            most = ALL >> 2
            hold = rig.coalescer.join(block, most)
            flight = flight_of(hold, 2)
            assert flight.extent.pages == most
            await flight.wait(2)
            hold.close()
            others = asyncio.create_task(rig.coalescer.settled(block, ALL & ~most))
            same = asyncio.create_task(rig.coalescer.settled(block, most))
            await asyncio.sleep(0)
            assert others.done()
            assert not same.done()
            await same
            assert rig.store.present(block) & 1

    run(body)


def test_a_flight_that_is_left_before_its_first_step_stops_cleanly() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            rig.coalescer.join(block, ALL).close()
            await soon(lambda: rig.coalescer.flight_count == 0, "over")
            assert rig.origin.gets == []
            hold = rig.coalescer.join(block, ALL)
            await landed(hold, 7)
            hold.close()

    run(body)


def test_a_flight_that_is_left_while_it_waits_for_its_turn_never_flies() -> None:
    async def body() -> None:
        async with open_rig(max_gets=1) as rig:
            gate = Gate(rig.origin)
            first, second, third = blocks_of(rig.origin.put(NAME, DATA))[:3]
            holds = [rig.coalescer.join(block, ALL) for block in (first, second, third)]
            holds[1].close()
            assert rig.coalescer.flight_count == 2
            gate.opened.set()
            await landed(holds[2], 7)
            assert [a.wanted.start for a in rig.origin.gets if a.wanted] == [0, 2048]
            for hold in holds:
                hold.close()

    run(body)


def test_a_reader_that_comes_while_the_flight_is_stopping_gets_a_new_one() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            gate = Gate(rig.origin)
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            await soon(lambda: rig.origin.active_count == 1, "under way")
            hold.close()
            again = rig.coalescer.join(block, ALL)
            gate.opened.set()
            await flight_of(again, 7).wait(7)
            again.close()
            assert await stored(rig) == 0  # another version; this one is stored all the same
            assert rig.store.stored_count == 1

    run(body)


def test_a_cancelled_waiter_leaves_the_others_waiting() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            gate = Gate(rig.origin)
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold, other = rig.coalescer.join(block, ALL), rig.coalescer.join(block, ALL)
            waiter = asyncio.create_task(flight_of(hold, 3).wait(3))
            follower = asyncio.create_task(flight_of(other, 3).wait(3))
            await soon(lambda: rig.origin.active_count == 1, "under way")
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            hold.close()
            gate.opened.set()
            await follower
            other.close()

    run(body)


def test_a_fill_that_many_start_and_leave_again_leaves_nothing_behind() -> None:
    async def body() -> None:
        async with open_rig(max_gets=2, max_buffer_bytes=2 * MIN_BUFFER_BYTES) as rig:
            blocks = blocks_of(rig.origin.put(NAME, DATA))
            for turn in range(60):
                holds = [rig.coalescer.join(blocks[(turn + n) % 6], 1 << n) for n in range(2)]
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
                for hold in holds:
                    hold.close()
            await soon(lambda: rig.coalescer.flight_count == 0, "over")

    run(body)
