"""Damaged files and failing disks under a reader: fetched again, never seen."""

from __future__ import annotations

import errno
import os

import pytest

from cachesvc.answer import take
from cachesvc.core.blocks import BlockRef
from cachesvc.disk.memory import MemoryDisk
from tests.support import NAME, Rig, blocks_of, open_rig, pattern, read_of, run, taken_bytes
from tests.unit.reader.sample import BIG, DATA, END, expected, fill


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
            pin = rig.store.pin(blocks_of(version)[0])
            assert pin is not None
            rig.reader.broken(pin, OSError(errno.ENODATA, "short"))
            pin.close()
            assert rig.store.stored_count == 5
            assert rig.count("corrupt_blocks_total", check="length") == 1
            assert await rig.read() == DATA

    run(body)
