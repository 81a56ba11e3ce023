"""A store that is opened again: what stands on its disks comes back, and nothing else."""

from __future__ import annotations

import errno
from contextlib import closing
from pathlib import Path

from cachesvc.disk.memory import MemoryDisk
from tests.support import FILE_BYTES, block_data
from tests.unit.store.bench import BLOCK, BLOCKS, DATA, Bench, bytes_of, failing, flip, path_of


def test_all_blocks_come_back_after_a_restart(bench: Bench) -> None:
    for number, block in enumerate(BLOCKS):
        bench.put(block, 0, 1 + number % 8)
    bench.store.close()
    store = bench.open(recover=False)
    assert max(store.recover()) == len(BLOCKS)
    assert not store.recovering
    assert store.stored_bytes == len(BLOCKS) * FILE_BYTES
    for number, block in enumerate(BLOCKS[:-1]):
        pin = store.pin(block)
        assert pin is not None
        with closing(pin):
            assert pin.present == (1 << 1 + number % 8) - 1
            assert bytes_of(pin, block) == block_data(block, DATA)[: 128 * (1 + number % 8)]


def test_blocks_are_served_before_recovery_has_begun(bench: Bench) -> None:
    bench.put(BLOCK)
    bench.put(BLOCKS[1])
    bench.store.close()
    store = bench.open(recover=False)
    assert bench.has(BLOCKS[1])
    assert store.stored_count == 1
    steps = store.recover()
    next(steps)
    assert bench.has(BLOCK)
    list(steps)
    assert store.stored_count == 2


def test_a_write_during_recovery_extends_what_is_on_the_disk(bench: Bench) -> None:
    bench.put(BLOCK, 0, 4)
    bench.store.close()
    store = bench.open(recover=False)
    assert bench.put(BLOCK, 4, 8)
    assert bench.has(BLOCK)
    list(store.recover())
    assert bench.has(BLOCK)
    assert store.stored_count == 1


def test_recovery_into_a_smaller_capacity_evicts(bench: Bench) -> None:
    for block in BLOCKS:
        bench.put(block)
    bench.store.close()
    store = bench.open(6 * FILE_BYTES)
    assert 0 < store.stored_bytes <= 6 * FILE_BYTES
    assert len(list(bench.disks[0].scan())) == store.stored_count
    assert sum(bench.has(block) for block in BLOCKS) == store.stored_count


def test_recovery_removes_what_cannot_prove_itself(nvme: tuple[Bench, Path]) -> None:
    bench, folder = nvme
    for block in BLOCKS[:3]:
        bench.put(block)
    bench.store.close()
    flip(5000)(path_of(folder, BLOCKS[0]))
    path_of(folder, BLOCKS[1]).rename(path_of(folder, BLOCKS[1]).with_name("x"))
    bench.open()
    assert bench.store.stored_count == 1
    assert [path for path in folder.rglob("*") if path.is_file()] == [path_of(folder, BLOCKS[2])]


def test_recovery_leaves_no_file_open(memory: tuple[Bench, MemoryDisk]) -> None:
    bench, disk = memory
    for block in BLOCKS:
        bench.put(block)
    bench.store.close()
    bench.open()
    assert disk.open_count == 0


def test_a_block_that_two_devices_hold_is_kept_once() -> None:
    """So it comes to stand after a device failed and was mended: written again on the other."""
    disks = [MemoryDisk("one"), MemoryDisk("two")]
    bench = Bench(*disks)
    bench.put(BLOCK)
    raw = next(disk.files[BLOCK.id] for disk in disks if disk.files)
    bench.store.close()
    for disk in disks:
        disk.files[BLOCK.id] = bytearray(raw)
    store = bench.open()
    assert store.stored_count == 1
    assert [BLOCK.id in disk.files for disk in disks].count(True) == 1
    pin = store.pin(BLOCK)
    assert pin is not None
    store.drop(pin, "page")
    pin.close()
    assert store.stored_bytes == 0
    assert store.pin(BLOCK) is None
    store.close()


def test_a_device_that_fails_during_recovery_does_not_stop_it() -> None:
    disks = [MemoryDisk("one"), MemoryDisk("two")]
    bench = Bench(*disks)
    for block in BLOCKS:
        bench.put(block)
    bench.store.close()
    disks[0].fail = failing(errno.EIO, "pread")
    store = bench.open()
    assert store.devices[0].failure
    assert not store.recovering
    assert store.stored_count == len(disks[1].files) > 0
    store.close()
    assert [disk.open_count for disk in disks] == [0, 0]


def test_a_block_is_taken_in_although_its_mark_changes_again_and_again() -> None:
    disk = MemoryDisk()
    bench = Bench(disk)
    bench.put(BLOCK)
    bench.store.close()
    store = bench.open(recover=False)
    changes = 5

    def another_changes(op: str) -> None:
        nonlocal changes
        if op == "open" and changes:
            changes -= 1
            with store._stock.lock:
                store.open_blocks.changed(BLOCK.id)  # blocks share marks

    disk.fail = another_changes
    list(store.recover())
    assert changes == 0
    assert (list(disk.files), store.stored_count) == ([BLOCK.id], 1)
    assert bench.has(BLOCK)
    store.close()


def test_a_file_that_proves_nothing_goes_although_its_mark_changes_again_and_again() -> None:
    disk = MemoryDisk()
    bench = Bench(disk)
    bench.put(BLOCK)
    bench.store.close()
    disk.flip(BLOCK.id, -1)
    store = bench.open(recover=False)
    changes = 5

    def another_changes(op: str) -> None:
        nonlocal changes
        if op == "pread" and changes:
            changes -= 1
            with store._stock.lock:
                store.open_blocks.changed(BLOCK.id)

    disk.fail = another_changes
    list(store.recover())
    assert (changes, list(disk.files), store.stored_count) == (0, [], 0)
    store.close()
