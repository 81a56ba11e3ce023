"""Disks that are full, short of descriptors or broken: the store goes on with what is left."""

from __future__ import annotations

import errno
from contextlib import closing

import pytest

from cachesvc.disk.base import BlockFile
from cachesvc.disk.memory import MemoryDisk
from cachesvc.stock import FULL_REST_S
from tests.support import FILE_BYTES
from tests.unit.store.bench import BLOCK, BLOCKS, DATA, ROOMY_BYTES, Bench, bytes_of, failing


def test_a_disk_that_says_it_has_room_and_is_full_uses_less_and_grows_back(
    memory: tuple[Bench, MemoryDisk],
) -> None:
    """As under a quota that its file system does not tell of."""
    bench, disk = memory

    def fail(op: str) -> None:
        if op == "pwrite" and disk.taken_bytes() >= 5 * FILE_BYTES:
            raise OSError(errno.EDQUOT, "quota")

    disk.fail = fail
    stored = [bench.put(block) for block in BLOCKS[:10]]
    assert stored[:4] == [True] * 4
    assert not all(stored)
    assert any(bench.has(block) for block in BLOCKS[:10])
    assert bench.store.devices[0].capacity_bytes < ROOMY_BYTES
    assert bench.count("device_healthy", device="memory") == 1
    disk.fail = lambda _op: None
    bench.clock.now += FULL_REST_S
    assert bench.put(BLOCKS[10])
    assert bench.store.devices[0].capacity_bytes == ROOMY_BYTES
    assert all(bench.put(block) and bench.has(block) for block in BLOCKS)


def test_a_disk_that_is_full_for_an_append_keeps_the_pages_before(
    memory: tuple[Bench, MemoryDisk],
) -> None:
    bench, disk = memory
    bench.put(BLOCK, 0, 2)
    disk.fail = failing(errno.ENOSPC, "pwrite")
    assert not bench.put(BLOCK, 2, 4)
    pin = bench.store.pin(BLOCK)
    assert pin is not None
    with closing(pin):
        assert pin.present == 0b11
        assert bytes_of(pin, BLOCK) == DATA[:256]
    assert bench.store.devices[0].reserved_bytes == 0


def test_a_disk_that_is_full_when_empty_takes_nothing_and_tries_again(
    memory: tuple[Bench, MemoryDisk],
) -> None:
    bench, disk = memory
    disk.limit_bytes = 0
    assert not bench.put(BLOCK)
    assert disk.files == {}
    disk.limit_bytes = ROOMY_BYTES
    assert not bench.put(BLOCK)  # it rests
    bench.clock.now += FULL_REST_S
    assert bench.put(BLOCK)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("op", ["open", "create", "pread", "pwrite", "unlink"])
def test_a_failing_device_goes_out_of_use_and_the_other_goes_on(op: str, number: int) -> None:
    disks = [MemoryDisk("one"), MemoryDisk("two")]
    bench = Bench(*disks)
    bench.open(2 * 7 * FILE_BYTES, max_idle=0)
    for block in BLOCKS:
        bench.put(block)
    first = [next(block for block in BLOCKS if block.id in disk.files) for disk in disks]
    held = [pin for block in first if (pin := bench.store.pin(block))]
    disks[0].fail = failing(number, op)
    for block in [*reversed(BLOCKS), *BLOCKS]:
        if not bench.has(block):
            bench.put(block)
    assert bench.count("device_healthy", device="one") == 0
    assert bench.count("device_healthy", device="two") == 1
    assert bench.store.devices[0].failure
    assert bench.store.devices[0].index.stored_bytes == 0
    assert sum(bench.has(block) for block in BLOCKS) >= 2
    for pin in held:
        pin.close()
    assert bench.put(BLOCK)
    assert bench.has(BLOCK)
    assert [device.doomed_bytes for device in bench.store.devices] == [0, 0]
    assert [device.reserved_bytes for device in bench.store.devices] == [0, 0]
    bench.store.close()
    assert [disk.open_count for disk in disks] == [0, 0]


def test_a_store_whose_only_device_failed_stores_nothing(memory: tuple[Bench, MemoryDisk]) -> None:
    bench, disk = memory
    disk.fail = failing(errno.EIO, "create", "open", "pwrite")
    assert not bench.put(BLOCK)
    assert not bench.put(BLOCK)
    assert bench.store.pin(BLOCK) is None
    disk.fail = lambda _op: None
    assert not bench.put(BLOCK)  # for good


@pytest.mark.parametrize("op", ["open", "pread"])
def test_a_shortage_of_descriptors_is_a_miss_and_the_device_stays(
    memory: tuple[Bench, MemoryDisk], op: str
) -> None:
    bench, disk = memory
    bench.open(max_idle=0)
    bench.put(BLOCK)
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        disk.fail = failing(number, op)
        assert bench.store.pin(BLOCK) is None
        assert not bench.put(BLOCK)
    disk.fail = lambda _op: None
    assert bench.has(BLOCK)
    assert bench.count("device_healthy", device="memory") == 1


def test_a_shortage_of_descriptors_while_creating_stores_nothing(
    memory: tuple[Bench, MemoryDisk],
) -> None:
    bench, disk = memory
    disk.fail = failing(errno.EMFILE, "create")
    assert not bench.put(BLOCK)
    disk.fail = lambda _op: None
    assert bench.put(BLOCK)


def test_a_file_whose_size_cannot_be_told_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    bench = Bench(disk)
    bench.open(max_idle=0)
    bench.put(BLOCK)

    def fail(_file: BlockFile) -> int:
        raise OSError(errno.EIO, "fstat")

    with monkeypatch.context() as patch:
        patch.setattr("cachesvc.disk.memory.MemoryFile.taken_bytes", fail)
        assert bench.store.pin(BLOCK) is None
    assert bench.count("device_healthy", device="memory") == 0
    bench.store.close()
    assert disk.open_count == 0
