"""One flight per extent, whoever asks; its pages are there as they land, and its buffer no longer
than somebody needs it.
"""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.buffers import MIN_BUFFER_BYTES
from cachesvc.origin.memory import MemoryOrigin
from tests.support import GEOMETRY, NAME, block_data, blocks_of, open_rig, run, soon, store_pages
from tests.unit.coalescer.sample import ALL, DATA, flight_of, full_store, landed


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


def test_who_waits_for_several_pages_is_woken_when_the_last_has_landed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cachesvc.coalescer.TELL_S", 60.0)

    async def body() -> None:
        origin = MemoryOrigin(chunk_bytes=128)
        async with open_rig(origin=origin) as rig:
            block = blocks_of(origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            flight = flight_of(hold, 0)
            first, last = (
                asyncio.ensure_future(flight.wait(0)),
                asyncio.ensure_future(flight.wait(0, 5)),
            )
            await first
            assert not last.done()
            assert flight.wanted_page == 5
            await last
            assert not flight.waiters
            assert flight.wanted_page > 1 << 32
            assert flight.landed(5)
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
