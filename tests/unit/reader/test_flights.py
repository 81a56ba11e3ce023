"""Reads from flights: shared by all readers, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from cachesvc.answer import take
from cachesvc.core.errors import OriginError, Overloaded
from cachesvc.core.request import StatRequest
from cachesvc.core.types import ByteRange, Source
from cachesvc.disk.memory import MemoryDisk
from cachesvc.origin.memory import Fault
from tests.support import NAME, blocks_of, open_rig, read_of, run, soon, taken_bytes
from tests.unit.reader.sample import DATA, END, RANGES, expected, fill


def test_many_readers_of_a_cold_object_cost_one_get_for_each_extent() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            answers = await asyncio.gather(*(rig.read() for _ in range(64)))
            assert set(answers) == {DATA}
            assert rig.origin.landed_bytes == END
            wanted = [asked.wanted for asked in rig.origin.gets if asked.wanted]
            assert len(wanted) == len(set(wanted)) == 6
            assert [asked.op for asked in rig.origin.log].count("head") == 0
            assert rig.count("requests_total", op="read", result="filled") == 1
            assert rig.count("requests_total", op="read", result="joined") == 63

    run(body)


def test_a_cold_read_of_a_few_bytes_fetches_one_extent() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            assert await rig.read((3000, 3001)) == DATA[3000:3001]
            assert [asked.wanted for asked in rig.origin.gets] == [ByteRange(2816, 3072)]

    run(body)


def test_segments_name_their_source() -> None:
    async def body() -> None:
        async with open_rig(disks=[MemoryDisk(limit_bytes=0)]) as rig:
            rig.origin.put(NAME, DATA)

            async def sources() -> set[Source]:
                answer = await rig.reader.read(read_of())
                found = set()
                while (segment := await take(answer)) is not None:
                    found.add(segment.source)
                    segment.close()
                return found

            first, second = await asyncio.gather(sources(), sources())
            assert {frozenset(first), frozenset(second)} == {
                frozenset({Source.ORIGIN}),
                frozenset({Source.JOINED}),
            }
        async with open_rig() as rig:
            await fill(rig)
            answer = await rig.reader.read(read_of())
            segment = await take(answer)
            assert segment is not None
            assert segment.source is Source.DISK
            segment.close()
            await answer.aclose()

    run(body)


def test_a_reader_that_goes_away_stops_its_fills() -> None:
    async def body() -> None:
        async with open_rig(max_gets=2) as rig:
            rig.origin.put(NAME, DATA)
            answer = await rig.reader.read(read_of())
            segment = await take(answer)
            assert segment is not None
            segment.close()
            await answer.aclose()
            await soon(lambda: rig.coalescer.flight_count == 0, "all are stopped")
            assert rig.origin.landed_bytes < END

    run(body)


def test_a_reader_cancelled_at_any_step_leaves_nothing_behind() -> None:
    async def body() -> None:
        for steps in range(60):
            async with open_rig(max_gets=2) as rig:
                rig.origin.put(NAME, DATA)
                task = asyncio.create_task(rig.read())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    run(body)


def test_one_reader_that_leaves_does_not_disturb_the_other() -> None:
    async def body() -> None:
        for steps in range(0, 40, 3):
            async with open_rig() as rig:
                rig.origin.put(NAME, DATA)
                one, other = asyncio.create_task(rig.read()), asyncio.create_task(rig.read())
                for _ in range(steps):
                    await asyncio.sleep(0)
                one.cancel()
                assert await other == DATA
                assert rig.origin.landed_bytes == END
                await asyncio.gather(one, return_exceptions=True)

    run(body)


def test_an_answer_that_is_never_taken_from_starts_nothing() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            await rig.reader.stat(StatRequest(NAME))
            answer = await rig.reader.read(read_of())
            await answer.aclose()
            assert rig.origin.gets == []

    run(body)


def test_a_store_without_room_serves_from_memory() -> None:
    async def body() -> None:
        async with open_rig(disks=[MemoryDisk(limit_bytes=0)], max_gets=2) as rig:
            rig.origin.put(NAME, DATA)
            for wanted in RANGES:
                assert await rig.read(wanted) == expected(*wanted)

    run(body)


def test_a_store_with_little_room_evicts_under_its_readers_and_serves_all() -> None:
    async def body() -> None:
        async with open_rig(capacity_bytes=2 * 8192 + 8192, max_gets=3) as rig:
            rig.origin.put(NAME, DATA)
            for _ in range(3):
                answers = await asyncio.gather(*(rig.read(one) for one in RANGES))
                assert answers == [expected(*one) for one in RANGES]

    run(body)


def test_pages_that_are_evicted_under_a_reader_are_fetched_again() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            answer = await rig.reader.read(read_of((0, None)))
            pieces = []
            while (segment := await take(answer)) is not None:
                pieces.append(taken_bytes(segment, 128))
                segment.close()
                for block in blocks_of(version):  # everything leaves
                    if pin := rig.store.pin(block):
                        rig.store.drop(pin, "page")
                        pin.close()
            assert b"".join(pieces) == DATA
            assert len(rig.origin.gets) > 6

    run(body)


def test_a_reader_whose_pages_keep_leaving_is_served_from_memory() -> None:
    class Amnesiac(MemoryDisk):
        """Stores everything and finds nothing again."""

        def open(self, block_id: bytes):  # type: ignore[no-untyped-def]
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def body() -> None:
        disk = Amnesiac()
        async with open_rig(disks=[disk]) as rig:
            rig.origin.put(NAME, DATA)
            rig.store.open_blocks.max_idle_count = 0
            assert await rig.read() == DATA
            assert await rig.read((100, 1500)) == DATA[100:1500]

    run(body)


def test_a_fill_that_fails_in_the_middle_is_an_error_and_never_a_short_answer() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            rig.origin.before = lambda op, name, wanted: (
                Fault(cut_after_bytes=300) if op == "get" and wanted and wanted.start else None
            )
            with pytest.raises(OriginError, match="cut"):
                await rig.read()
            assert await rig.read((0, 1024 + 256)) == DATA[:1280]
            rig.origin.before = None
            assert await rig.read() == DATA
            assert rig.count("requests_total", op="read", result="error") == 1

    run(body)


def test_too_many_fills_are_overloaded_and_leave_nothing() -> None:
    async def body() -> None:
        async with open_rig(max_gets=1, max_waiting_count=2) as rig:
            rig.origin.put(NAME, DATA)
            with pytest.raises(Overloaded):
                await rig.read()
            await soon(lambda: rig.coalescer.flight_count == 0, "what had begun is stopped")
            assert await rig.read((0, 2048)) == DATA[:2048]

    run(body)
