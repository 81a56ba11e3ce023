"""A read gives the object's bytes or an error that says why: from disk, from flights, from both."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

import pytest

from cachesvc.answer import FilePart, take
from cachesvc.core.blocks import BlockRef
from cachesvc.core.errors import (
    NotCacheable,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    Overloaded,
    RangeError,
)
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.types import ByteRange, Geometry, ObjectName, ObjectVersion, Source
from cachesvc.disk.memory import MemoryDisk
from cachesvc.origin.memory import Fault, MemoryOrigin
from tests.support import (
    GEOMETRY,
    NAME,
    Rig,
    block_data,
    blocks_of,
    open_rig,
    pattern,
    read_of,
    received,
    run,
    soon,
    store_pages,
    taken_bytes,
)

DATA = pattern(5 * GEOMETRY.block_bytes + 200)
END = len(DATA)
BIG = Geometry(
    block_bytes=512 << 10, page_bytes=16 << 10, extent_min_bytes=64 << 10, extent_max_bytes=1 << 20
)
RANGES: list[tuple[int, int | None]] = [
    (0, None),
    (0, 0),
    (0, 1),
    (0, 128),
    (0, 1024),
    (1, 129),
    (127, 129),
    (1000, 1050),
    (1024, 2048),
    (1023, 2049),
    (300, 4000),
    (END - 1, END),
    (END - 1, None),
    (END - 201, None),
    (END - 200, END),
    (END, None),
    (END, END),
    (END, END + 100),
    (END - 5, END + 100),
    (500, 500),
    (0, 1 << 60),
]


def expected(start: int, end: int | None) -> bytes:
    return DATA[start : END if end is None else end]


async def fill(rig: Rig) -> ObjectVersion:
    """Put the object and read it all."""
    version = rig.origin.put(NAME, DATA)
    assert await rig.read() == DATA
    return version


async def hit(rig: Rig, request: ReadRequest) -> bytes | None:
    answer = rig.reader.hit(request)
    if answer is None:
        return None
    page_bytes = rig.reader.geometry.page_bytes
    return b"".join(data for _, data in await received(answer, page_bytes))


# -- ranges


@pytest.mark.parametrize("wanted", RANGES)
@pytest.mark.parametrize("verify", [False, True])
def test_any_range_is_the_slice_of_the_object(wanted: tuple[int, int | None], verify: bool) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            for _ in range(2):  # from the origin, then from disk
                assert await rig.read(wanted, verify=verify) == expected(*wanted)
            assert await hit(rig, read_of(wanted)) == expected(*wanted)

    run(body)


def test_many_ranges_come_one_after_another_in_the_order_of_the_request() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            wanted = [*reversed(RANGES), *RANGES]
            for _ in range(2):
                assert await rig.read(*wanted) == b"".join(expected(*one) for one in wanted)
            assert rig.origin.landed_bytes == END

    run(body)


def test_an_empty_object_has_one_empty_range() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, b"")
            for wanted in ((0, None), (0, 0), (0, 100)):
                assert await rig.read(wanted) == b""
                assert await hit(rig, read_of(wanted)) == b""
            with pytest.raises(RangeError, match="0 bytes"):
                await rig.read((1, None))
            assert rig.origin.gets == []

    run(body)


@pytest.mark.parametrize("wanted", [(END + 1, None), (END + 1, END + 2), (-1, 5), (5, 4)])
def test_a_range_that_cannot_be_is_an_error_that_names_the_object(
    wanted: tuple[int, int | None],
) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            for _ in range(2):
                with pytest.raises(RangeError, match="s3://bucket/key"):
                    await rig.read((0, 1), wanted)
            with pytest.raises(RangeError):
                rig.reader.hit(read_of(wanted))

    run(body)


def test_a_request_for_too_many_bytes_or_ranges_is_refused() -> None:
    async def body() -> None:
        async with open_rig(geometry=BIG) as rig:
            version = ObjectVersion(NAME, '"v"', 1 << 40)
            request = ReadRequest(NAME, ((0, None),), version)
            with pytest.raises(RangeError, match="cut it up"):
                await rig.reader.read(request)
            with pytest.raises(RangeError, match="cut it up"):
                rig.reader.hit(request)
        with pytest.raises(RangeError, match="1024"):
            read_of(*([(0, 1)] * 1025))
        with pytest.raises(RangeError):
            ReadRequest(NAME, ())

    run(body)


def test_a_missing_object_is_not_found_and_named() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            with pytest.raises(ObjectNotFound, match="s3://bucket/key"):
                await rig.read()
            with pytest.raises(ObjectNotFound, match="s3://bucket/key"):
                await rig.reader.stat(StatRequest(NAME))
            assert rig.reader.hit(read_of()) is None
            assert rig.count("requests_total", op="read", result="error") == 1
            assert rig.count("requests_total", op="stat", result="error") == 1

    run(body)


# -- hits


def test_a_hit_is_the_same_answer_as_a_read() -> None:
    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=8 << 20) as rig:
            data = pattern((1 << 20) + 70_001)
            rig.origin.put(NAME, data)
            await rig.read()
            ranges = [(0, None), (1, 65_536), (1, 65_537), (10_000, 300_000), (700_000, 700_001)]
            ranges += [(16_384, 32_768), (500_000, 600_000), (len(data) - 1, len(data))]
            for wanted in ranges:
                request = read_of(wanted)
                one, other = rig.reader.hit(request), await rig.reader.read(request)
                assert one is not None
                assert one.version == other.version
                assert one.fresh_for_s == other.fresh_for_s
                while (left := await take(one)) is not None:
                    right = await take(other)
                    assert right is not None
                    assert (left.start, left.length_bytes) == (right.start, right.length_bytes)
                    assert (left.source, left.checksums) == (right.source, right.checksums)
                    kinds = [[type(part) for part in it.parts] for it in (left, right)]
                    assert kinds[0] == kinds[1]
                    got = taken_bytes(left, BIG.page_bytes)
                    assert got == taken_bytes(right, BIG.page_bytes)
                    assert got == data[left.start : left.start + left.length_bytes]
                    left.close()
                    right.close()
                assert await take(other) is None

    run(body)


def test_a_large_answer_goes_from_the_file_and_only_cut_pages_from_memory() -> None:
    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=8 << 20) as rig:
            data = pattern(512 << 10)
            rig.origin.put(NAME, data)
            await rig.read()
            answer = rig.reader.hit(read_of((100, 300_000)))
            assert answer is not None
            (segment,) = answer.segments
            kinds = [isinstance(part, FilePart) for part in segment.parts]
            assert kinds == [False, True, False]
            assert taken_bytes(segment, BIG.page_bytes) == data[100:300_000]
            answer.close()

    run(body)


def test_what_is_partly_stored_is_no_hit() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = rig.origin.put(NAME, DATA)
            await rig.reader.stat(StatRequest(NAME))
            block = blocks_of(version)[0]
            store_pages(rig.store, block, block_data(block, DATA), 0, 4)
            assert rig.reader.hit(read_of((0, 513))) is None
            assert rig.reader.hit(read_of((0, 512), (2000, 2001))) is None
            assert await hit(rig, read_of((0, 512))) == DATA[:512]
            assert rig.disks[0].open_count <= 1  # type: ignore[attr-defined]

    run(body)


def test_a_version_that_nobody_checked_is_no_hit() -> None:
    async def body() -> None:
        async with open_rig(revalidate_s=5.0) as rig:
            version = await fill(rig)
            assert await hit(rig, read_of()) == DATA
            rig.clock.now += 5.1
            assert rig.reader.hit(read_of()) is None
            assert await hit(rig, ReadRequest(NAME, ((0, None),), version)) == DATA
            assert rig.reader.hit(ReadRequest(NAME, ((0, 1),), max_age_s=0.0)) is None
            assert rig.reader.hit(ReadRequest(NAME, ((0, 1),), bypass=True)) is None
            assert rig.reader.hit(read_of((0, 1), verify=True)) is None  # a page at a time

    run(body)


# -- flights


def test_many_readers_of_a_cold_object_cost_one_get_for_each_extent() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            answers = await asyncio.gather(*(rig.read() for _ in range(64)))
            assert set(answers) == {DATA}
            assert rig.origin.landed_bytes == END
            wanted = [asked.wanted for asked in rig.origin.gets if asked.wanted]
            assert len(wanted) == len(set(wanted)) == 6
            assert [asked.op for asked in rig.origin.log].count("head") == 1
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
                    if pin := rig.store.hit(block):
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


# -- versions


def test_an_overwrite_is_seen_after_the_revalidation_time() -> None:
    async def body() -> None:
        async with open_rig(revalidate_s=5.0) as rig:
            await fill(rig)
            rig.origin.put(NAME, DATA[::-1])
            assert await rig.read() == DATA
            rig.clock.now += 5.1
            assert await rig.read() == DATA[::-1]

    run(body)


def test_an_overwrite_during_a_read_is_object_changed_and_never_a_mixture() -> None:
    async def body() -> None:
        async with open_rig(revalidate_s=1e9, max_gets=1) as rig:
            rig.origin.put(NAME, DATA)
            answer = await rig.reader.read(read_of())
            segment = await take(answer)
            assert segment is not None
            assert taken_bytes(segment, 128) == DATA[: segment.length_bytes]
            segment.close()
            rig.origin.put(NAME, DATA[::-1])
            with pytest.raises(ObjectChanged):
                await received(answer)
            assert await rig.read() == DATA[::-1]  # the old version is not believed any more

    run(body)


def test_a_pinned_version_is_read_while_it_is_stored_and_gone_afterwards() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            old = await fill(rig)
            rig.origin.put(NAME, DATA[::-1])
            request = ReadRequest(NAME, ((0, None),), old)
            answer = await rig.reader.read(request)
            assert b"".join(data for _, data in await received(answer)) == DATA
            for block in blocks_of(old)[:1]:
                pin = rig.store.hit(block)
                assert pin is not None
                rig.store.drop(pin, "page")
                pin.close()
            with pytest.raises(ObjectChanged):
                await received(await rig.reader.read(request))

    run(body)


def test_a_version_that_lies_about_its_size_gets_no_bytes() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            for size_bytes in (END - 1, END + 1, 100):
                lie = ObjectVersion(NAME, version.etag, size_bytes)
                with pytest.raises(ObjectChanged):
                    await received(await rig.reader.read(ReadRequest(NAME, ((0, 50),), lie)))

    run(body)


# -- damage


def damaged(rig: Rig, block: BlockRef, page: int) -> None:
    disk = rig.disks[0]
    assert isinstance(disk, MemoryDisk)
    disk.flip(block.id, 8 * (page * rig.reader.geometry.page_bytes + 5) + 3)


@pytest.mark.parametrize("wanted", [(0, None), (0, 128), (10, 20), (5, 5000), (1020, 1030)])
@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("by_hit", [False, True])
def test_a_flipped_bit_is_fetched_again_and_never_seen(
    wanted: tuple[int, int | None], verify: bool, by_hit: bool
) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            block = blocks_of(version)[0]
            for page in (0, 7):
                damaged(rig, block, page)
            if by_hit:
                assert rig.reader.hit(read_of(wanted, verify=verify)) is None
            assert await rig.read(wanted, verify=verify) == expected(*wanted)
            assert rig.count("corrupt_blocks_total", check="page") == 1
            assert await rig.read(wanted) == expected(*wanted)
            assert rig.origin.landed_bytes > END

    run(body)


def test_a_flipped_bit_in_a_large_range_is_seen_by_the_receiver_and_then_by_verify() -> None:
    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=8 << 20) as rig:
            data = pattern(512 << 10)
            version = rig.origin.put(NAME, data)
            await rig.read()
            damaged(rig, blocks_of(version, BIG)[0], 9)
            answer = await rig.reader.read(read_of())
            segment = await take(answer)
            assert segment is not None
            with pytest.raises(AssertionError):
                taken_bytes(segment, BIG.page_bytes)
            segment.close()
            await answer.aclose()
            assert await rig.read((0, None), verify=True) == data
            assert await rig.read() == data

    run(body)


@pytest.mark.parametrize("wanted", [(0, None), (10, 20)])
def test_a_disk_that_fails_while_reading_is_replaced_by_the_origin(
    wanted: tuple[int, int | None],
) -> None:
    async def body() -> None:
        disk = MemoryDisk()
        async with open_rig(disks=[disk]) as rig:
            await fill(rig)

            def fail(op: str) -> None:
                if op == "pread":
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

            disk.fail = fail
            assert await rig.read(wanted) == expected(*wanted)
            assert rig.reader.hit(read_of(wanted)) is None
            assert rig.count("device_healthy", device="memory") == 0

    run(body)


def test_a_file_that_was_cut_short_is_dropped_when_a_lane_says_so() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            pin = rig.store.hit(blocks_of(version)[0])
            assert pin is not None
            rig.reader.broken(pin, OSError(errno.ENODATA, "short"))
            pin.close()
            assert rig.store.stored_count == 5
            assert rig.count("corrupt_blocks_total", check="length") == 1
            assert await rig.read() == DATA

    run(body)


# -- what may not be cached


@pytest.mark.parametrize("etag", ["", 'W/"weak"', "unquoted", '""'])
def test_an_object_without_a_strong_etag_is_an_invitation_to_bypass(etag: str) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = rig.origin.put(NAME, DATA, etag)
            answer = await rig.reader.read(read_of())
            assert (answer.version, answer.version.cacheable) == (version, False)
            assert await received(answer) == []
            assert rig.reader.hit(read_of()) is None
            with pytest.raises(NotCacheable, match="bypass"):
                await rig.reader.read(ReadRequest(NAME, ((0, 1),), version))
            for wanted in RANGES:
                answer = await rig.reader.read(ReadRequest(NAME, (wanted,), bypass=True))
                pieces = await received(answer)
                assert b"".join(data for _, data in pieces) == expected(*wanted)
                assert [s for s, _ in pieces] == list(range(wanted[0], END, 100))[: len(pieces)]
            assert rig.store.stored_count == 0
            assert rig.origin.gets == []

    run(body)


def test_a_bypass_that_is_cut_short_is_an_error() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA, "")
            rig.origin.before = lambda op, name, wanted: Fault(cut_after_bytes=50)
            with pytest.raises(OriginError):
                await received(await rig.reader.read(ReadRequest(NAME, ((0, 99),), bypass=True)))
            rig.origin.before = None
            with pytest.raises(RangeError):
                await rig.reader.read(ReadRequest(NAME, ((END + 1, None),), bypass=True))
            with pytest.raises(ObjectNotFound):
                await rig.reader.read(
                    ReadRequest(ObjectName("bucket", "none"), ((0, 1),), bypass=True)
                )
            assert rig.count("requests_total", op="read", result="error") == 3

    run(body)


def test_a_bypass_of_several_ranges_is_refused() -> None:
    with pytest.raises(RangeError):
        ReadRequest(NAME, ((0, 1), (2, 3)), bypass=True)


def test_what_is_read_is_counted_by_where_it_came_from() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            await fill(rig)
            await rig.read((0, 100))
            assert await hit(rig, read_of((0, 10))) == DATA[:10]
            counts: Callable[..., float] = rig.count
            assert counts("read_bytes_total", source="origin") == END
            assert counts("read_bytes_total", source="disk") == 110
            assert counts("requests_total", op="read", result="filled") == 1
            assert counts("requests_total", op="read", result="hit") == 2

    run(body)


def test_a_chain_of_origins_that_answer_slowly_serves_early_pages_early() -> None:
    async def body() -> None:
        origin = MemoryOrigin(chunk_bytes=64)
        async with open_rig(origin=origin) as rig:
            origin.put(NAME, DATA)
            answer = await rig.reader.read(read_of((0, 1024)))
            segment = await take(answer)
            assert segment is not None
            assert origin.landed_bytes < 512
            segment.close()
            await answer.aclose()

    run(body)
