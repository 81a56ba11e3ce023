"""What the file system has left bounds what a device stores: nothing fails for lack of space, and
nothing is evicted in vain for long.
"""

from __future__ import annotations

import errno
from threading import Event, Thread

import pytest

from cachesvc.core.types import Geometry, ObjectName
from cachesvc.device import VAIN_REST_S
from cachesvc.disk.base import Space
from cachesvc.disk.memory import MemoryDisk
from cachesvc.stock import SPACE_INTERVAL_S
from tests.support import (
    FILE_BYTES,
    block_data,
    blocks_of,
    pattern,
    store_pages,
    version_of,
)
from tests.unit.store.bench import BLOCK, BLOCKS, DATA, ROOMY_BYTES, Bench, bytes_of


class MappedDisk(MemoryDisk):
    """Clients map the files of `mapped`: when one is unlinked, its space is not given back."""

    def __init__(self, files: float) -> None:
        super().__init__(limit_bytes=int(files * FILE_BYTES))
        self.mapped: set[bytes] = set()
        self.looks = 0

    def unlink(self, block_id: bytes) -> None:
        if block_id in self.mapped and block_id in self.files:
            self.foreign_bytes += FILE_BYTES
        super().unlink(block_id)

    def space(self) -> Space:
        self.looks += 1
        return super().space()

    def unmap(self) -> None:
        self.mapped.clear()
        self.foreign_bytes = 0


def bench_on(disk: MappedDisk, capacity_bytes: int = ROOMY_BYTES) -> Bench:
    bench = Bench(disk)
    bench.open(capacity_bytes)
    return bench


def put(bench: Bench, number: int) -> bool:
    """Store a block, some time after the one before."""
    bench.clock.now += SPACE_INTERVAL_S
    return bench.put(BLOCKS[number])


def test_a_file_system_smaller_than_the_capacity_is_used_up_to_its_headroom() -> None:
    disk = MappedDisk(10.5)
    bench = bench_on(disk)
    for _ in range(2):
        for block in BLOCKS[:-1]:
            assert bench.put(block)
            assert bench.has(block)
    assert bench.store.stored_count == len(disk.files) == 10
    assert disk.space().free_bytes >= disk.limit_bytes // 32
    bench.store.close()


def test_the_file_system_is_asked_once_an_interval_and_never_by_a_hit() -> None:
    disk = MappedDisk(100)
    bench = bench_on(disk)
    for block in BLOCKS:
        bench.put(block)
    assert disk.looks == 1
    bench.clock.now += SPACE_INTERVAL_S
    assert all(bench.has(block) for block in BLOCKS)
    assert disk.looks == 1
    bench.put(BLOCK)
    assert bench.put(BLOCKS[1], 0, 1)
    assert disk.looks == 2
    bench.store.close()


def test_space_of_evicted_files_that_clients_map_is_not_used_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cachesvc.device._HEADROOM_PART", 5)  # more than a file, as in real ones
    disk = MappedDisk(14)
    bench = bench_on(disk, 11 * FILE_BYTES)
    for number in range(8):
        assert put(bench, number)
    disk.mapped = {BLOCKS[number].id for number in range(4)}
    stored = [put(bench, number) for number in range(8, 20)]
    assert disk.foreign_bytes == 4 * FILE_BYTES
    assert stored == [True] * 12
    assert bench.store.devices[0].capacity_bytes < 8 * FILE_BYTES
    assert disk.taken_bytes() + disk.foreign_bytes <= disk.limit_bytes
    disk.unmap()
    assert put(bench, 0)
    assert bench.store.devices[0].capacity_bytes == 11 * FILE_BYTES
    bench.store.close()


def test_what_everybody_maps_is_not_evicted_in_vain_for_long() -> None:
    disk = MappedDisk(11)
    bench = bench_on(disk, 10 * FILE_BYTES)
    for number in range(9):
        assert put(bench, number)
    disk.mapped = {block.id for block in BLOCKS}
    stored = [put(bench, number) for number in range(9, 20)]
    assert not any(stored[4:])
    assert bench.store.stored_count >= 6
    kept = bench.store.stored_count
    bench.clock.now += VAIN_REST_S
    for number in range(9, 20):
        put(bench, number)
    assert bench.store.stored_count >= kept - 3
    disk.unmap()
    assert all(put(bench, number) and bench.has(BLOCKS[number]) for number in range(9, 20))
    bench.store.close()


def test_a_write_that_finds_the_disk_full_asks_at_once() -> None:
    """Others took the space since the last look."""
    disk = MappedDisk(10)
    bench = bench_on(disk)
    for number in range(6):
        assert bench.put(BLOCKS[number])
    disk.foreign_bytes = 4 * FILE_BYTES
    assert not bench.put(BLOCKS[6])
    assert disk.looks == 2
    assert bench.put(BLOCKS[6])
    assert bench.store.stored_count == 6
    assert put(bench, 7)
    assert bench.store.stored_count == 5
    assert bench.count("device_healthy", device="memory") == 1
    bench.store.close()


def test_the_space_of_what_leaves_is_used_only_once_it_is_gone() -> None:
    """A large block leaves for a small one; another small one, which fits beside it, comes while
    the large file is still being removed.
    """
    geometry = Geometry(64 << 10, 4096, 4096, 64 << 10)
    data = pattern(3 * geometry.block_bytes)
    disk = MappedDisk(3.5 * (64 + 4) * 1024 / FILE_BYTES)
    bench = bench_on(disk)

    def put_small(key: str) -> bool:
        version = version_of(data[:4096], ObjectName("bucket", key))
        return store_pages(bench.store, blocks_of(version, geometry)[0], data[:4096])

    for block in blocks_of(version_of(data), geometry):
        assert store_pages(bench.store, block, block_data(block, data))
    disk.foreign_bytes = disk.space().free_bytes
    bench.clock.now += SPACE_INTERVAL_S
    leaving, go = Event(), Event()

    def fail(op: str) -> None:
        if op == "unlink" and not leaving.is_set():
            leaving.set()
            assert go.wait(20)

    disk.fail = fail
    stored: list[bool] = []
    first = Thread(target=lambda: stored.append(put_small("one")))
    second = Thread(target=lambda: stored.append(put_small("two")))
    first.start()
    assert leaving.wait(20)
    second.start()
    second.join(0.2)  # it may wait for the first, and must not fail meanwhile
    go.set()
    first.join()
    second.join()
    assert stored == [True, True]
    assert bench.count("unstored_bytes_total") == 0
    assert bench.store.stored_count == 4
    bench.store.close()


def test_a_full_file_system_costs_a_restarted_node_nothing_that_it_has() -> None:
    disk = MappedDisk(10.5)
    bench = bench_on(disk)
    for block in BLOCKS:
        bench.put(block)
    kept = set(disk.files)
    bench.store.close()
    bench.open(recover=False)
    steps = bench.store.recover()
    next(steps)
    bench.clock.now += SPACE_INTERVAL_S
    new = next(block for block in BLOCKS if block.id not in kept)
    assert not bench.put(new) or len(kept - set(disk.files)) == 1
    kept &= set(disk.files)
    list(steps)
    assert set(disk.files) >= kept
    assert bench.store.stored_count == len(disk.files)
    assert put(bench, BLOCKS.index(new))
    bench.store.close()


def test_a_pinned_block_that_was_evicted_counts_once() -> None:
    disk = MappedDisk(4.5)
    bench = bench_on(disk)
    assert bench.put(BLOCK)
    pin = bench.store.pin(BLOCK)
    assert pin is not None
    bench.store.drop(pin, "page")
    disk.foreign_bytes = FILE_BYTES  # an unlinked memory file takes no space by itself
    assert [put(bench, number) for number in range(1, 9)] == [True] * 8
    assert bench.store.stored_count == 3
    assert bytes_of(pin, BLOCK) == DATA[:1024]
    pin.close()
    bench.store.close()


def test_a_file_system_that_does_not_tell_bounds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = MappedDisk(100)
    monkeypatch.setattr(disk, "space", lambda: Space(0, 0))
    bench = bench_on(disk)
    assert all(bench.put(block) for block in BLOCKS)
    assert bench.store.devices[0].capacity_bytes == ROOMY_BYTES
    bench.store.close()


def test_a_file_system_that_cannot_be_asked_takes_its_device_out_of_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = MappedDisk(100)

    def space() -> Space:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(disk, "space", space)
    bench = bench_on(disk)
    assert not bench.put(BLOCK)
    assert bench.count("device_healthy", device="memory") == 0
    bench.store.close()
