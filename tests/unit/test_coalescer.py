"""One flight per extent, whoever asks, however they leave; and nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import closing

import pytest

from cachesvc import buffers
from cachesvc.buffers import MIN_BUFFER_BYTES
from cachesvc.core.errors import (
    AccessDenied,
    InternalError,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    Overloaded,
)
from cachesvc.core.types import ByteRange, ObjectName
from cachesvc.disk.memory import MemoryDisk
from cachesvc.flight import Flight, Hold
from cachesvc.origin.memory import Fault, MemoryOrigin
from tests.support import (
    GEOMETRY,
    NAME,
    Rig,
    block_data,
    blocks_of,
    open_rig,
    pattern,
    run,
    soon,
    store_pages,
)

DATA = pattern(5 * GEOMETRY.block_bytes + 200)
ALL = 0xFF


class Gate:
    """Holds the origin's GETs back until it is opened."""

    def __init__(self, origin: MemoryOrigin) -> None:
        self.opened = asyncio.Event()
        self.origin = origin
        origin.before = self._before

    async def _wait(self, op: str) -> Fault | None:
        if op == "get":
            await self.opened.wait()
        return None

    def _before(self, op: str, name: ObjectName, wanted: ByteRange | None):  # type: ignore[no-untyped-def]
        return self._wait(op)


def flight_of(hold: Hold, page: int) -> Flight:
    flight = hold.covering(page)
    assert flight is not None
    return flight


async def landed(hold: Hold, page: int) -> bytes:
    """The bytes of a page, once it has landed, from the flight's memory."""
    flight = flight_of(hold, page)
    await flight.wait(page)
    start = page * GEOMETRY.page_bytes
    data = flight.bytes_of(start, min(start + 128, flight.landed_end))
    return b"" if data is None else bytes(data)


def full_store() -> MemoryDisk:
    """A disk that takes nothing."""
    return MemoryDisk(limit_bytes=0)


async def stored(rig: Rig, index: int = 0) -> int:
    """The pages of a block that the store has."""
    pin = rig.store.pin(blocks_of(rig.origin.put(NAME, DATA, '"v"'))[index])
    if pin is None:
        return 0
    with closing(pin):
        return pin.present


def test_readers_that_come_together_share_one_get_for_each_extent() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[1]
            holds = [rig.coalescer.join(block, 0b11 << page % 7) for page in range(64)]
            assert sum(len(hold.began) for hold in holds) == rig.coalescer.flight_count
            for number, hold in enumerate(holds):
                for flight in hold.flights:
                    await flight.wait(flight.extent.beyond_page - 1)
                assert hold.covering(number % 7) is not None
            for hold in holds:
                hold.close()
            asked = [asked.wanted for asked in rig.origin.gets]
            assert sum(wanted.length_bytes for wanted in asked if wanted) == GEOMETRY.block_bytes
            assert rig.origin.landed_bytes == GEOMETRY.block_bytes
            assert rig.store.stored_count == 1

    run(body)


def test_a_page_that_is_stored_needs_no_flight() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            store_pages(rig.store, block, block_data(block, DATA), 0, 4)
            hold = rig.coalescer.join(block, 0b1111)
            assert hold.flights == []
            hold.close()
            hold = rig.coalescer.join(block, 0b11111)
            assert [f.extent.pages for f in hold.flights] == [0b110000]
            await landed(hold, 4)
            hold.close()

    run(body)


def test_pages_are_served_before_the_flight_is_over() -> None:
    async def body() -> None:
        origin = MemoryOrigin(chunk_bytes=128)
        async with open_rig(origin=origin) as rig:
            block = blocks_of(origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            assert await landed(hold, 0) == DATA[:128]
            flight = flight_of(hold, 0)
            assert not flight.done
            assert flight.checksums_of(0, 1)
            assert await landed(hold, 7) == DATA[896:1024] or flight.buffer is None
            await soon(lambda: flight.done, "the flight is over")
            hold.close()

    run(body)


def test_a_page_does_not_land_before_its_last_byte() -> None:
    async def body() -> None:
        origin = MemoryOrigin(chunk_bytes=127)
        async with open_rig(origin=origin) as rig:
            block = blocks_of(origin.put(NAME, DATA))[5]
            assert block.length_bytes == 200
            hold = rig.coalescer.join(block, 0b11)
            flight = flight_of(hold, 0)
            await flight.wait(0)
            assert flight.landed_pages in (1, 2)
            await flight.wait(1)
            assert flight.landed_end == 200
            hold.close()
            await soon(lambda: rig.coalescer.flight_count == 0, "over")
            assert await rig.read((5120, None)) == DATA[5120:]

    run(body)


def test_the_buffer_goes_once_its_pages_are_stored_though_readers_stay() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            await soon(lambda: flight_of(hold, 0).done, "over")
            assert rig.coalescer.buffer_bytes == 0
            assert flight_of(hold, 0).bytes_of(0, 128) is None
            await flight_of(hold, 7).wait(7)
            hold.close()

    run(body)


def test_the_buffer_stays_with_its_readers_if_the_store_takes_nothing() -> None:
    async def body() -> None:
        async with open_rig(disks=[full_store()]) as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            one, two = rig.coalescer.join(block, ALL), rig.coalescer.join(block, 0b1)
            await soon(lambda: flight_of(one, 0).done, "over")
            one.close()
            assert rig.coalescer.buffer_bytes == MIN_BUFFER_BYTES
            assert await landed(two, 0) == DATA[:128]
            two.close()
            two.close()
            assert rig.coalescer.buffer_bytes == 0

    run(body)


def test_a_kept_buffer_stays_though_it_is_stored() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL, keep=True)
            await soon(lambda: flight_of(hold, 0).done, "over")
            assert rig.coalescer.buffer_bytes == MIN_BUFFER_BYTES
            assert await landed(hold, 7) == DATA[896:1024]
            hold.close()

    run(body)


# -- leaving


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


# -- failing


@pytest.mark.parametrize(
    "kind", [OriginError, ObjectChanged, ObjectNotFound, AccessDenied, Overloaded]
)
def test_a_failure_reaches_everybody_and_is_not_remembered(kind: type[OriginError]) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            fail = True

            def before(op: str, name: ObjectName, wanted: ByteRange | None) -> None:
                if fail:
                    raise kind("told so")

            rig.origin.before = before
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            holds = [rig.coalescer.join(block, ALL) for _ in range(5)]
            waits = [flight_of(hold, 5).wait(5) for hold in holds]
            for error in await asyncio.gather(*waits, return_exceptions=True):
                assert type(error) is kind
                assert str(error) == "told so"
            fail = False
            again = rig.coalescer.join(block, ALL)  # while those who failed still hold on
            await flight_of(again, 5).wait(5)
            for hold in [*holds, again]:
                hold.close()
            assert rig.store.stored_count == 1

    run(body)


def test_what_landed_before_a_failure_is_served_and_the_rest_fails() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.before = lambda op, name, wanted: Fault(cut_after_bytes=300)
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            with pytest.raises(OriginError, match="cut"):
                await flight_of(hold, 2).wait(2)
            await flight_of(hold, 1).wait(1)
            with pytest.raises(OriginError):
                await flight_of(hold, 7).wait(7)
            hold.close()
            pin = rig.store.pin(block)
            assert pin is not None
            with closing(pin):
                assert pin.present == 0b11
                assert pin.page(1) == DATA[128:256]

    run(body)


def test_an_origin_that_breaks_is_an_internal_error_and_no_hang() -> None:
    async def body() -> None:
        async with open_rig() as rig:

            def before(op: str, name: ObjectName, wanted: ByteRange | None) -> None:
                raise ZeroDivisionError

            rig.origin.before = before
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            with pytest.raises(InternalError, match="block 0"):
                await flight_of(hold, 0).wait(0)
            hold.close()

    run(body)


def test_an_origin_that_ends_early_without_an_error_is_no_short_answer() -> None:
    class Lazy(MemoryOrigin):
        async def fetch(self, version, wanted, sink):  # type: ignore[no-untyped-def]
            sink.landed(128)

    async def body() -> None:
        async with open_rig(origin=Lazy()) as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            with pytest.raises(Overloaded):
                await flight_of(hold, 1).wait(1)
            hold.close()

    run(body)


def test_a_store_that_fails_in_the_middle_of_a_flight_costs_nothing_but_its_bytes() -> None:
    async def body() -> None:
        disk = MemoryDisk()
        async with open_rig(disks=[disk]) as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            await flight_of(hold, 2).wait(2)

            def fail(op: str) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            disk.fail = fail
            assert await landed(hold, 7) == DATA[896:1024]
            hold.close()
            assert rig.count("unstored_bytes_total") > 0
            assert rig.count("device_healthy", device="memory") == 0

    run(body)


# -- limits


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


# -- closing


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
