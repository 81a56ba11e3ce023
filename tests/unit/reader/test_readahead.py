"""Readahead: who reads in order finds the next blocks here; nobody else costs the origin a byte."""

from __future__ import annotations

import asyncio
import random

import pytest

from cachesvc import readahead
from cachesvc.answer import take
from cachesvc.core.types import ByteRange
from cachesvc.disk.memory import MemoryDisk
from cachesvc.origin.memory import Fault
from cachesvc.wire import lone
from tests.support import GEOMETRY, NAME, Rig, open_rig, pattern, read_of, run, soon
from tests.unit.reader.sample import answered

BLOCK = GEOMETRY.block_bytes
DATA = pattern(24 * BLOCK + 200)
END = len(DATA)
ROOM = 16 * BLOCK


def put(rig: Rig) -> None:
    rig.origin.put(NAME, DATA)


async def read(rig: Rig, index: int, blocks: float = 1) -> None:
    start, end = int(index * BLOCK), int(index * BLOCK + blocks * BLOCK)
    assert await rig.read((start, end)) == DATA[start:end]


async def hit(rig: Rig, index: int) -> bool:
    answer = rig.reader.hit(read_of((index * BLOCK, (index + 1) * BLOCK)))
    if answer is None:
        return False
    answer.close()
    await asyncio.sleep(0)
    return True


async def settled(rig: Rig) -> list[int]:
    """The blocks that GETs asked for so far, once nothing is under way."""
    await soon(
        lambda: rig.coalescer.flight_count == rig.reader.readahead.under_way_bytes == 0,
        "it is still",
    )
    return sorted(asked.wanted.start // BLOCK for asked in rig.origin.gets if asked.wanted)


def test_two_blocks_in_order_bring_the_next_two() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            await read(rig, 5)
            assert await settled(rig) == [5]
            await read(rig, 6)
            assert await settled(rig) == [5, 6, 7, 8]

    run(body)


def test_a_reader_in_order_waits_for_two_blocks_only_and_the_origin_sends_every_byte_once() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            waited = []
            for index in range(25):
                if not await hit(rig, index):
                    waited.append(index)
                    await read(rig, index)
                await settled(rig)
            assert waited == [0, 1]
            assert await settled(rig) == list(range(25))
            assert rig.origin.landed_bytes == END

    run(body)


def test_many_readers_in_order_cost_the_origin_every_byte_once() -> None:
    async def scan(rig: Rig, seed: int) -> None:
        dice = random.Random(seed)
        for index in range(24):
            await read(rig, index)
            for _ in range(dice.randrange(5)):
                await asyncio.sleep(0)

    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            await asyncio.gather(*(scan(rig, seed) for seed in range(16)))
            assert await settled(rig) == list(range(25))
            assert rig.origin.landed_bytes == END

    run(body)


def test_reads_at_a_time_that_overtake_each_other_are_read_ahead_for() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM, max_gets=24) as rig:
            put(rig)
            await asyncio.gather(*(read(rig, index) for index in (0, 2, 1, 4, 3, 5)))
            assert await settled(rig) == list(range(12))
            assert rig.origin.landed_bytes == 12 * BLOCK

    run(body)


def test_small_reads_in_order_end_up_in_whole_blocks() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            for start in range(0, 4 * BLOCK, 256):
                assert await rig.read((start, start + 256)) == DATA[start : start + 256]
                await settled(rig)
            wanted = [asked.wanted for asked in rig.origin.gets]
            assert ByteRange(2 * BLOCK, 3 * BLOCK) in wanted
            assert ByteRange(3 * BLOCK, 4 * BLOCK) in wanted
            assert len(wanted) == len(set(wanted))

    run(body)


@pytest.mark.parametrize("step", [50, 64, 100, 128, 250, 300])
def test_reads_in_order_that_are_shorter_than_an_extent_wait_for_two_blocks_only(step: int) -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            waited = []
            for start in range(0, END, step):
                end = min(END, start + step)
                answer = rig.reader.hit(read_of((start, end)))
                if answer is not None:
                    answer.close()
                    await asyncio.sleep(0)
                else:
                    waited.append(start)
                    assert await rig.read((start, end)) == DATA[start:end]
                await settled(rig)
            assert max(waited) < 2 * BLOCK
            assert len(waited) <= 2 * BLOCK // GEOMETRY.extent_min_bytes
            assert rig.origin.landed_bytes == END

    run(body)


def test_reads_in_order_that_become_small_are_still_read_ahead_for() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            version = rig.origin.put(NAME, DATA)
            beginning = lone.request_start(version)
            await read(rig, 0)
            await read(rig, 1)
            await settled(rig)
            for start in range(2 * BLOCK, END, 64):
                request = lone.pack_read(beginning, start, min(END, start + 64), 0)
                assert answered(rig.reader.small, request, 0) is not None, f"byte {start}"
                await asyncio.sleep(0)
                await settled(rig)
            assert rig.origin.landed_bytes == END

    run(body)


def test_a_hit_on_what_was_read_in_order_already_does_not_wake_the_loop() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            ahead, told = rig.reader.readahead, []
            asked = ahead.asked
            ahead.asked = lambda parts, *hold: [told.append(parts), asked(parts, *hold)]  # type: ignore[assignment,func-returns-value,method-assign]
            for index in range(3, 7):
                await read(rig, index)
            await settled(rig)
            for index, tells in ((4, False), (3, False), (7, True), (7, False), (8, True)):
                told.clear()
                assert await hit(rig, index)
                assert bool(told) == tells, f"block {index}"
            for index in range(9, 25):
                await read(rig, index)
                await settled(rig)
            await read(rig, 0)
            told.clear()
            for index in (0, 3, 12, 24):
                assert await hit(rig, index)
            assert told == [], "all of its stream has been brought"

    run(body)


def test_a_random_reader_costs_what_it_reads_and_no_more() -> None:
    async def body() -> None:
        for seed in range(20):
            async with open_rig(readahead_bytes=ROOM) as rig:
                put(rig)
                dice = random.Random(seed)
                extents = set()
                for _ in range(60):
                    start = dice.randrange(END - 100)
                    await rig.read((start, start + 100))
                    extents |= {start // 256, (start + 99) // 256}
                await settled(rig)
                assert rig.origin.landed_bytes <= 256 * len(extents), f"seed {seed}"

    run(body)


def test_whole_blocks_in_random_order_are_not_read_ahead_for() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            for index in (7, 3, 12, 20, 1, 16, 9, 5, 14, 22):
                await read(rig, index)
            assert await settled(rig) == [1, 3, 5, 7, 9, 12, 14, 16, 20, 22]

    run(body)


def test_one_large_read_is_not_read_ahead_for() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            await read(rig, 0, 8)
            assert await settled(rig) == list(range(8))

    run(body)


def test_no_more_than_the_bound_is_under_way() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=3 * BLOCK) as rig:
            put(rig)
            most = 0
            opened = asyncio.Event()

            async def held(wanted: ByteRange | None) -> Fault | None:
                nonlocal most
                most = max(most, rig.reader.readahead.under_way_bytes)
                if wanted is not None and wanted.start >= 8 * BLOCK:
                    await opened.wait()
                return None

            rig.origin.before = lambda _op, _name, wanted: held(wanted)
            for index in range(8):
                await read(rig, index)
            await soon(lambda: rig.coalescer.flight_count == 3, "three blocks are under way")
            opened.set()
            for index in range(8, 25):
                await rig.read((index * BLOCK, (index + 1) * BLOCK))
            assert most == 3 * BLOCK
            assert await settled(rig) == list(range(25))

    run(body)


def test_a_small_read_finds_a_flight_to_spare() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM, max_gets=8) as rig:
            put(rig)
            opened = asyncio.Event()

            async def held(wanted: ByteRange | None) -> Fault | None:
                if wanted is not None and 8 * BLOCK <= wanted.start < 20 * BLOCK:
                    await opened.wait()
                return None

            rig.origin.before = lambda _op, _name, wanted: held(wanted)
            await asyncio.gather(*(read(rig, index) for index in range(8)))
            await soon(lambda: rig.coalescer.flight_count >= 7, "readahead flies")
            assert await rig.read((23 * BLOCK, 23 * BLOCK + 100)) == DATA[23 * BLOCK :][:100]
            assert rig.coalescer.flight_count <= 8
            opened.set()
            await settled(rig)

    run(body)


def test_a_reader_that_leaves_takes_its_readahead_along() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            closed = asyncio.Event()

            async def held(wanted: ByteRange | None) -> Fault | None:
                if wanted is not None and wanted.start >= 2 * BLOCK:
                    await closed.wait()
                return None

            rig.origin.before = lambda _op, _name, wanted: held(wanted)
            await read(rig, 0)
            await read(rig, 1)
            answer = await rig.reader.read(read_of((2 * BLOCK, 3 * BLOCK)))
            task = asyncio.ensure_future(take(answer))
            await soon(lambda: rig.coalescer.flight_count >= 3, "readahead flies")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await answer.aclose()
            assert await settled(rig) == [0, 1, 2, 3, 4, 5]
            assert rig.origin.landed_bytes == 2 * BLOCK

    run(body)


def test_a_silent_reader_is_forgotten_with_what_has_not_landed(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            stuck = asyncio.Event()

            async def held(wanted: ByteRange | None) -> Fault | None:
                if wanted is not None and wanted.start >= 2 * BLOCK:
                    await stuck.wait()
                return None

            rig.origin.before = lambda _op, _name, wanted: held(wanted)
            monkeypatch.setattr(readahead, "IDLE_S", 0.001)
            await read(rig, 0)
            await read(rig, 1)
            await settled(rig)
            assert rig.origin.landed_bytes == 2 * BLOCK

    run(body)


def test_what_a_store_does_not_keep_is_not_brought_twice() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM, disks=[MemoryDisk(limit_bytes=0)]) as rig:
            put(rig)
            for index in range(20):
                await read(rig, index)
                await settled(rig)
            assert rig.origin.landed_bytes <= 22 * BLOCK

    run(body)


def test_a_fill_ahead_that_fails_is_no_error_of_the_reader() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            failing = [True]

            def before(_op: str, _name: object, wanted: ByteRange | None) -> Fault | None:
                ahead = wanted is not None and wanted.start >= 2 * BLOCK
                return Fault(cut_after_bytes=0) if ahead and failing[0] else None

            rig.origin.before = before
            await read(rig, 0)
            await read(rig, 1)
            await settled(rig)
            failing[0] = False
            for index in range(2, 24):
                await read(rig, index)
            assert rig.count("requests_total", op="read", result="error") == 0

    run(body)


def test_only_blocks_of_our_own_are_brought_and_those_of_others_are_no_gap() -> None:
    async def body() -> None:
        def ours(_name: object, index: int) -> bool:
            return index % 3 != 1

        async with open_rig(readahead_bytes=ROOM, owns=ours) as rig:
            put(rig)
            waited = []
            for index in [one for one in range(25) if one % 3 != 1]:
                if not await hit(rig, index):
                    waited.append(index)
                    await read(rig, index)
                await settled(rig)
            assert waited == [0, 2]
            assert await settled(rig) == [one for one in range(25) if one % 3 != 1]

    run(body)


def test_what_is_here_already_is_not_brought_again() -> None:
    async def body() -> None:
        async with open_rig(readahead_bytes=ROOM) as rig:
            put(rig)
            await read(rig, 3, 0.5)
            await read(rig, 4)
            for index in range(2):
                await read(rig, index)
            await read(rig, 2)
            await settled(rig)
            wanted = [asked.wanted for asked in rig.origin.gets if asked.wanted]
            assert sum(one.length_bytes for one in wanted) == rig.origin.landed_bytes
            assert len({at for one in wanted for at in range(one.start, one.end, 128)}) == sum(
                one.length_bytes // 128 for one in wanted
            )

    run(body)
