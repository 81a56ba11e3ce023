"""Room that was reserved for a write is given back, however the write ends; nothing stays open.

Story: only an OSError gave it back. A MemoryError, or checksums that did not fit the data, left the
bytes reserved until the node was restarted, and the file open.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from cachesvc.disk.memory import MemoryDisk
from tests.support import FILE_BYTES, block_data
from tests.unit.store.bench import BLOCK, BLOCKS, DATA, Bench

ENDS = [MemoryError, KeyboardInterrupt, OSError, ZeroDivisionError]


def raising(error: type[BaseException], op: str) -> Callable[[str], None]:
    def fail(asked: str) -> None:
        if asked == op:
            raise error(errno.EIO, "it ended")

    return fail


def nothing_is_left(bench: Bench) -> None:
    device = bench.store.devices[0]
    assert (device.reserved_bytes, device.doomed_bytes, device.leaving) == (0, 0, {})


@pytest.fixture
def small() -> tuple[Bench, MemoryDisk]:
    """With room for three files."""
    disk = MemoryDisk()
    bench = Bench(disk)
    bench.open(3 * FILE_BYTES + 1024)
    return bench, disk


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("op", ["create", "pwrite"])
def test_of_a_new_file(small: tuple[Bench, MemoryDisk], end: type[BaseException], op: str) -> None:
    bench, disk = small
    disk.fail = raising(end, op)
    if end is OSError:
        assert not bench.put(BLOCK)
    else:
        with pytest.raises(end):
            bench.put(BLOCK)
    nothing_is_left(bench)
    assert disk.open_count == 0
    if end is not OSError:
        assert disk.files == {}
        disk.fail = lambda _op: None
        assert bench.put(BLOCK)
        assert bench.has(BLOCK)


@pytest.mark.parametrize("end", ENDS)
def test_of_further_pages(small: tuple[Bench, MemoryDisk], end: type[BaseException]) -> None:
    bench, disk = small
    assert bench.put(BLOCK, 0, 4)
    disk.fail = raising(end, "pwrite")
    if end is OSError:
        assert not bench.put(BLOCK, 4, 8)
    else:
        with pytest.raises(end):
            bench.put(BLOCK, 4, 8)
        disk.fail = lambda _op: None
        assert bench.put(BLOCK, 4, 8)
        assert bench.has(BLOCK)
    nothing_is_left(bench)


@pytest.mark.parametrize("end", ENDS)
def test_of_a_write_that_was_still_making_room(
    small: tuple[Bench, MemoryDisk], end: type[BaseException]
) -> None:
    bench, disk = small
    assert all(bench.put(block) for block in BLOCKS[:3])
    disk.fail = raising(end, "unlink")
    if end is OSError:
        assert not bench.put(BLOCKS[3])
    else:
        with pytest.raises(end):
            bench.put(BLOCKS[3])
    nothing_is_left(bench)


@pytest.mark.parametrize("present", [0, 4])
def test_of_more_checksums_than_the_block_has_pages(
    small: tuple[Bench, MemoryDisk], present: int
) -> None:
    bench, disk = small
    if present:
        assert bench.put(BLOCK, 0, present)
    data = memoryview(block_data(BLOCK, DATA))[present * 128 :]
    with pytest.raises(AssertionError):
        bench.store.write(BLOCK, present, data, bytes(8 * 100))
    nothing_is_left(bench)
    assert disk.open_count == min(present, 1)
    assert bench.put(BLOCK)
    assert bench.has(BLOCK)
