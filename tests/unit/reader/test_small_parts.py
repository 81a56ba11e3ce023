"""Small reads of pages that were found right before: only the parts that are asked for are read,
and each time they are checked; whatever happened to the file, no wrong byte and no short answer.
"""

from __future__ import annotations

import pytest

from cachesvc.core import parts
from cachesvc.core.types import Geometry, ObjectVersion
from cachesvc.disk.memory import MemoryDisk
from tests.support import FILE_BYTES, GEOMETRY, NAME, Rig, blocks_of, open_rig, pattern, run
from tests.unit.reader.sample import DATA, END, expected, fill
from tests.unit.reader.test_small import by_hit, small

PAGE = GEOMETRY.page_bytes
PART = parts.part_bytes_of(PAGE)


def body_of(answer: bytes | None) -> bytes | None:
    if answer is None:
        return None
    return answer[16 + int.from_bytes(answer[4:8], "big") :]


def overwrite(rig: Rig, version: ObjectVersion, at: int, data: bytes) -> None:
    """Bytes of the first block's file, as a bad disk, or somebody else, would change them."""
    pin = rig.store.hold(blocks_of(version)[0])
    assert pin is not None
    pin.held.file.pwrite(data, at)
    pin.close()


def record_reads(rig: Rig, version: ObjectVersion) -> list[tuple[int, int]]:
    """From where to where the first block's file is read from now on."""
    pin = rig.store.hold(blocks_of(version)[0])
    assert pin is not None
    file, seen = pin.held.file, list[tuple[int, int]]()
    pread = file.pread

    def recorded(size_bytes: int, offset: int, wait: bool = True) -> bytes:
        seen.append((offset, offset + size_bytes))
        return pread(size_bytes, offset, wait=wait)

    file.pread = recorded  # type: ignore[method-assign]
    pin.close()
    return seen


def test_only_the_parts_that_are_asked_for_are_read_once_the_page_was_filled() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            reads = record_reads(rig, version)
            for start, end in ((1, 2), (PART, 2 * PART), (PAGE - 1, PAGE)):
                reads.clear()
                assert body_of(small(rig, version, (start, end))) == DATA[start:end]
                assert reads == [(start // PART * PART, -(-end // PART) * PART)]

    run(body)


def test_only_the_parts_that_are_asked_for_are_read_once_the_page_was_checked() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            rig.store.part_sums.forget([blocks_of(version)[0].id])
            reads = record_reads(rig, version)
            assert small(rig, version, (PAGE + 1, PAGE + 2)) is not None
            assert reads == [(PAGE, 2 * PAGE)]
            for start in range(PAGE, 2 * PAGE):
                for end in range(start + 1, 2 * PAGE + 1):
                    if (start, end) == (PAGE + 1, PAGE + 2):
                        continue
                    reads.clear()
                    assert body_of(small(rig, version, (start, end))) == DATA[start:end]
                    assert reads == [(start // PART * PART, -(-end // PART) * PART)]
            assert small(rig, version, (PAGE + 3, PAGE + 90)) == by_hit(
                rig, version, (PAGE + 3, PAGE + 90)
            )

    run(body)


def test_parts_of_the_page_at_the_end_of_the_object_end_where_it_ends() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            first = END // PAGE * PAGE
            assert END % PAGE, "the last page is a part of one"
            for start in range(first, END):
                for end in range(start + 1, END + 1):
                    assert small(rig, version, (start, end)) == by_hit(rig, version, (start, end))
            assert small(rig, version, (first, END + 1)) is None

    run(body)


@pytest.mark.parametrize("page_bytes", [128, 100, 17])
def test_whole_parts_are_what_they_should_be_wherever_pages_end(page_bytes: int) -> None:
    geometry = Geometry(8 * page_bytes, page_bytes, 2 * page_bytes, 8 * page_bytes)
    part_bytes = parts.part_bytes_of(page_bytes)

    async def body() -> None:
        async with open_rig(geometry=geometry) as rig:
            version = await fill(rig)
            known = 0
            for start in range(END + 3 * geometry.block_bytes):
                end = start + part_bytes
                inside = end <= END and start // page_bytes == (end - 1) // page_bytes
                found = small(rig, version, (start, end))
                assert body_of(found) == (DATA[start:end] if inside else None), f"byte {start}"
                known += inside and start % page_bytes % part_bytes == 0
            assert known > END // part_bytes // 2

    run(body)


def test_a_byte_that_rots_in_a_whole_part_that_is_asked_for_is_found() -> None:
    async def body() -> None:
        async with open_rig(disks=[MemoryDisk()]) as rig:
            version = await fill(rig)
            assert body_of(small(rig, version, (PART, 2 * PART))) == DATA[PART : 2 * PART]
            overwrite(rig, version, 2 * PART - 1, bytes([DATA[2 * PART - 1] ^ 1]))
            assert small(rig, version, (PART, 2 * PART)) is None
            assert rig.count("corrupt_blocks_total", check="page") == 1
            assert await rig.read((PART, 2 * PART)) == expected(PART, 2 * PART)
            assert body_of(small(rig, version, (PART, 2 * PART))) == DATA[PART : 2 * PART]

    run(body)


def test_a_byte_that_rots_under_a_checked_page_is_found_wherever_it_lies() -> None:
    async def body() -> None:
        for at in range(PAGE, 2 * PAGE):
            async with open_rig(disks=[MemoryDisk()]) as rig:
                version = await fill(rig)
                assert small(rig, version, (PAGE, PAGE + 1)) is not None
                overwrite(rig, version, at, bytes([DATA[at] ^ 1]))
                part = at // PART * PART
                for other in range(PAGE, 2 * PAGE, PART):
                    if other != part:
                        found = small(rig, version, (other + 1, other + 3))
                        assert body_of(found) == DATA[other + 1 : other + 3]
                assert rig.count("corrupt_blocks_total", check="page") == 0
                end = min(part + PART, at + 2)
                assert small(rig, version, (part, end)) is None, f"byte {at}"
                assert rig.count("corrupt_blocks_total", check="page") == 1
                assert await rig.read((part, end)) == expected(part, end)
                assert body_of(small(rig, version, (part, end))) == DATA[part:end]

    run(body)


@pytest.mark.parametrize("left", [0, PAGE, PAGE + PART, PAGE + PART + 1, 2 * PAGE - PART])
def test_a_file_that_is_cut_short_under_a_checked_page_gives_no_short_answer(left: int) -> None:
    async def body() -> None:
        async with open_rig(disks=[MemoryDisk()]) as rig:
            version = await fill(rig)
            assert small(rig, version, (PAGE, PAGE + 1)) is not None
            pin = rig.store.hold(blocks_of(version)[0])
            assert pin is not None
            del pin.held.file.data[left:]  # type: ignore[attr-defined]
            pin.close()
            assert small(rig, version, (PAGE, 2 * PAGE)) is None
            assert rig.count("corrupt_blocks_total", check="page") == 1
            assert await rig.read((PAGE, 2 * PAGE)) == expected(PAGE, 2 * PAGE)

    run(body)


@pytest.mark.parametrize("wanted", [(PAGE + 7, PAGE + 70), (PAGE, PAGE + PART)])
def test_a_page_whose_file_fails_a_read_of_a_part_is_asked_for_as_a_whole(
    wanted: tuple[int, int],
) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            assert small(rig, version, (PAGE, PAGE + 1)) is not None
            pin = rig.store.hold(blocks_of(version)[0])
            assert pin is not None
            pread = pin.held.file.pread

            def closed_meanwhile(size_bytes: int, offset: int, wait: bool = True) -> bytes:
                if size_bytes < PAGE:
                    raise OSError(9, "Bad file descriptor")
                return pread(size_bytes, offset, wait=wait)

            pin.held.file.pread = closed_meanwhile  # type: ignore[method-assign]
            pin.close()
            assert body_of(small(rig, version, wanted)) == DATA[slice(*wanted)]
            assert rig.count("corrupt_blocks_total", check="page") == 0
            assert not rig.store.devices[0].failure

    run(body)


@pytest.mark.parametrize("wanted", [(PAGE + 7, PAGE + 70), (PAGE, PAGE + PART)])
def test_who_may_not_wait_for_a_disk_does_not(wanted: tuple[int, int]) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            assert rig.reader.small.body(version, *wanted) == DATA[slice(*wanted)]
            pin = rig.store.hold(blocks_of(version)[0])
            assert pin is not None

            def not_in_memory(size_bytes: int, offset: int, wait: bool = True) -> bytes:
                assert not wait
                raise BlockingIOError(11, "not all of it is in memory")

            pin.held.file.pread = not_in_memory  # type: ignore[method-assign]
            pin.close()
            assert rig.reader.small.body(version, *wanted) is None
            for empty in (0, GEOMETRY.block_bytes, END):
                assert rig.reader.small.body(version, empty, empty) is None

    run(body)


def test_what_is_known_of_pages_is_of_one_version_and_goes_with_its_block() -> None:
    async def body() -> None:
        async with open_rig(capacity_bytes=7 * FILE_BYTES) as rig:
            version = await fill(rig)
            assert small(rig, version, (PAGE, PAGE + 1)) is not None
            changed = pattern(9 * GEOMETRY.block_bytes, seed=5)
            other = rig.origin.put(NAME, changed)
            rig.versions.forget(version)
            await rig.read()
            assert small(rig, version, (PAGE + 2, PAGE + 9)) is None, "evicted"
            await rig.read((PAGE, 2 * PAGE))
            assert small(rig, version, (PAGE + 2, PAGE + 9)) is None
            for _ in range(2):
                found = small(rig, other, (PAGE + 2, PAGE + 9))
                assert body_of(found) == changed[PAGE + 2 : PAGE + 9]

    run(body)


def test_whoever_asks_with_verify_has_pages_checked_as_a_whole_again() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            sums = rig.store.part_sums
            first, last = blocks_of(version)[0], blocks_of(version)[-1]
            assert await rig.read((5, 55), verify=True) == expected(5, 55)
            assert sums.of(first.id, 0) is None
            assert sums.of(last.id, 0) is not None
            reads = record_reads(rig, version)
            assert small(rig, version, (PAGE + 1, PAGE + 2)) is not None
            assert reads == [(PAGE, 2 * PAGE)]

    run(body)
