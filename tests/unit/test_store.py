"""The store on a real directory and in memory: what is stored is right, or it is not there."""

from __future__ import annotations

import errno
import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import TRAILER_BYTES, checksum
from cachesvc.core.types import ObjectName
from cachesvc.disk.base import BlockFile, Disk
from cachesvc.disk.memory import MemoryDisk
from cachesvc.disk.nvme import NvmeDisk, NvmeFile
from cachesvc.metrics import Metrics
from cachesvc.pins import Pin
from cachesvc.stock import FULL_REST_S
from cachesvc.store import Store
from tests.support import (
    FILE_BYTES,
    GEOMETRY,
    NAME,
    Clock,
    block_data,
    blocks_of,
    pattern,
    store_pages,
    until,
    version_of,
)

DATA = pattern(20 * GEOMETRY.block_bytes + 300)
BLOCKS = blocks_of(version_of(DATA))
BLOCK, LAST = BLOCKS[0], BLOCKS[-1]
ROOMY_BYTES = 1 << 20


class Bench:
    """A store over disks that outlive it, to be opened again as after a restart."""

    def __init__(self, *disks: Disk) -> None:
        self.disks = disks
        self.clock = Clock()
        self.open()

    def open(
        self, capacity_bytes: int = ROOMY_BYTES, recover: bool = True, max_idle: int = 4096
    ) -> Store:
        self.metrics = Metrics()
        self.store = Store(
            self.disks,
            capacity_bytes,
            self.metrics,
            clock=self.clock,
            max_idle_open_count=max_idle,
        )
        if recover:
            list(self.store.recover())
        return self.store

    def put(self, block: BlockRef, first: int = 0, beyond: int = 128) -> bool:
        return store_pages(self.store, block, block_data(block, DATA), first, beyond)

    def has(self, block: BlockRef) -> bool:
        pin = self.store.hit(block)
        if pin is None:
            return False
        with closing(pin):
            try:
                data = bytes_of(pin, block)
            except OSError as error:
                self.store.read_failed(pin, error)
                return False
            return pin.present == block.all_pages and data == block_data(block, DATA)

    def count(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"cachesvc_{metric}", labels) or 0.0


def bytes_of(pin: Pin, block: BlockRef) -> bytes | None:
    """All present pages, each checked; None if one of them fails."""
    pages = [pin.page(page) for page in range(block.page_count) if pin.present >> page & 1]
    return None if None in pages else b"".join(page for page in pages if page is not None)


@pytest.fixture(params=["memory", "nvme"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """One disk of either kind; at the end nothing is open any more."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    disk = MemoryDisk() if request.param == "memory" else NvmeDisk(tmp_path)
    bench = Bench(disk)
    yield bench
    bench.store.close()
    disk.close()
    assert getattr(disk, "open_count", 0) == 0
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def memory() -> Iterator[tuple[Bench, MemoryDisk]]:
    disk = MemoryDisk()
    bench = Bench(disk)
    yield bench, disk
    disk.fail = lambda _op: None
    bench.store.close()
    assert disk.open_count == 0


@pytest.fixture
def nvme(tmp_path: Path) -> Iterator[tuple[Bench, Path]]:
    """A bench on a directory, and where its block files stand."""
    before = len(os.listdir("/proc/self/fd"))
    with closing(NvmeDisk(tmp_path)) as disk:
        bench = Bench(disk)
        yield bench, tmp_path / "blocks"
        bench.store.close()
    assert len(os.listdir("/proc/self/fd")) == before


def path_of(folder: Path, block: BlockRef) -> Path:
    return folder / block.id.hex()[:2] / f"{block.id.hex()}.block"


# -- writing and reading


def test_a_block_that_was_never_written_is_not_there(bench: Bench) -> None:
    assert bench.store.hit(BLOCK) is None
    assert bench.store.stored_count == 0


@pytest.mark.parametrize("block", [BLOCK, LAST], ids=["full", "last and short"])
def test_what_was_written_is_read(bench: Bench, block: BlockRef) -> None:
    assert bench.put(block)
    assert bench.has(block)
    assert bench.store.stored_bytes == FILE_BYTES


def test_only_the_pages_that_were_written_are_present(bench: Bench) -> None:
    assert bench.put(BLOCK, 2, 4)
    assert bench.put(BLOCK, 7, 8)
    pin = bench.store.hit(BLOCK)
    assert pin is not None
    with closing(pin):
        assert pin.present == 0b10001100
        assert bytes_of(pin, BLOCK) == DATA[256:512] + DATA[896:1024]
        assert pin.checksums(2, 4) == checksum(DATA[256:384]) + checksum(DATA[384:512])
    assert bench.store.stored_count == 1


def test_a_present_page_never_changes(bench: Bench) -> None:
    assert bench.put(BLOCK, 2, 5)
    other = pattern(1024, seed=2)
    assert store_pages(bench.store, BLOCK, other, 0, 4)  # says stored: its pages are present
    assert store_pages(bench.store, BLOCK, other, 0, 8)
    pin = bench.store.hit(BLOCK)
    assert pin is not None
    with closing(pin):
        assert pin.present == 0xFF
        assert bytes_of(pin, BLOCK) == other[:256] + DATA[256:640] + other[640:]


def test_pages_that_come_while_a_pin_is_held_are_seen_by_it(bench: Bench) -> None:
    bench.put(BLOCK, 0, 1)
    pin = bench.store.hit(BLOCK)
    assert pin is not None
    with closing(pin):
        bench.put(BLOCK, 1, 2)
        assert pin.present == 0b11
        assert pin.page(1) == DATA[128:256]


def test_an_unpinned_pin_may_be_closed_again(bench: Bench) -> None:
    bench.put(BLOCK)
    one, two = bench.store.hit(BLOCK), bench.store.hit(BLOCK)
    assert one is not None
    assert two is not None
    one.close()
    one.close()
    assert two.page(0) == DATA[:128]
    two.close()
    assert bench.has(BLOCK)


def test_no_more_idle_files_stay_open_than_allowed(memory: tuple[Bench, MemoryDisk]) -> None:
    bench, disk = memory
    bench.open(max_idle=2)
    for block in BLOCKS:
        bench.put(block)
    assert disk.open_count == 2
    assert all(bench.has(block) for block in BLOCKS)
    assert disk.open_count == 2


def test_other_versions_and_objects_never_meet(bench: Bench) -> None:
    others = [
        version_of(DATA, etag='"v2"'),
        version_of(DATA, ObjectName("bucket", "key2")),
        version_of(DATA, ObjectName("bucket2", "key")),
        version_of(DATA[:-1]),
    ]
    bench.put(BLOCK)
    assert not any(bench.has(blocks_of(version)[0]) for version in others)


# -- room


def test_what_is_stored_never_exceeds_the_capacity(bench: Bench) -> None:
    capacity_bytes = 5 * FILE_BYTES + 2 * TRAILER_BYTES
    bench.open(capacity_bytes)
    for block in BLOCKS * 2:
        assert bench.put(block)
        assert bench.store.stored_bytes <= capacity_bytes
    assert 4 <= bench.store.stored_count <= 6
    assert len(list(bench.disks[0].scan())) == bench.store.stored_count
    assert bench.count("evicted_bytes_total", reason="capacity") > 0


def test_a_capacity_without_room_for_a_block_stores_nothing(bench: Bench) -> None:
    bench.open(TRAILER_BYTES)
    assert not bench.put(BLOCK)
    assert list(bench.disks[0].scan()) == []
    assert bench.count("unstored_bytes_total") == 1024


def test_a_block_that_leaves_while_pinned_stays_readable(bench: Bench) -> None:
    bench.put(BLOCK)
    pin = bench.store.hit(BLOCK)
    assert pin is not None
    bench.store.drop(pin, "page")
    for block in BLOCKS[1:]:
        bench.put(block)
    assert BLOCK.id not in set(bench.disks[0].scan())
    assert bytes_of(pin, BLOCK) == DATA[:1024]
    assert not bench.has(BLOCK)
    pin.close()


def test_space_of_unlinked_files_that_are_still_open_counts(bench: Bench) -> None:
    bench.open(2 * FILE_BYTES + 2 * TRAILER_BYTES)
    pins = []
    for block in BLOCKS:
        if bench.put(block) and (pin := bench.store.hit(block)):
            pins.append(pin)
            bench.store.drop(pin, "page")
    assert len(pins) == 2  # a third would have no room beside their bytes
    assert bench.store.devices[0].used_bytes == 2 * FILE_BYTES
    for pin in pins:
        pin.close()
    assert bench.put(BLOCKS[10])
    assert bench.store.devices[0].doomed_bytes == 0
    assert bench.store.devices[0].reserved_bytes == 0


def test_a_pinned_block_is_not_evicted_in_vain(bench: Bench) -> None:
    bench.open(4 * FILE_BYTES)
    for block in BLOCKS[:3]:
        assert bench.put(block)
    pins = [bench.store.hit(block) for block in BLOCKS[:2]]  # the oldest
    assert bench.put(BLOCKS[3])
    assert bench.put(BLOCKS[4])
    assert [bench.has(block) for block in BLOCKS[:5]] == [True, True, False, False, True]
    for pin in pins:
        assert pin is not None
        pin.close()


def test_a_store_full_of_pinned_blocks_refuses_and_keeps_them(bench: Bench) -> None:
    bench.open(3 * FILE_BYTES)
    stored = [block for block in BLOCKS[:2] if bench.put(block)]
    pins = [bench.store.hit(block) for block in stored]
    assert not bench.put(BLOCKS[2])
    assert all(bench.has(block) for block in stored)
    for pin in pins:
        assert pin is not None
        pin.close()
    assert bench.put(BLOCKS[2])


def test_pages_written_after_a_block_was_dropped_begin_it_anew(bench: Bench) -> None:
    bench.put(BLOCK, 0, 1)
    pin = bench.store.hit(BLOCK)
    assert pin is not None
    bench.store.drop(pin, "page")
    assert bench.put(BLOCK, 1, 2)
    fresh = bench.store.hit(BLOCK)
    assert fresh is not None
    assert (pin.present, fresh.present) == (0b1, 0b10)
    fresh.close()
    pin.close()


# -- damage


Damage = Callable[[Path], None]


def flip(at: int) -> Damage:
    def damage(path: Path) -> None:
        raw = bytearray(path.read_bytes())
        raw[at] ^= 0x10
        path.write_bytes(raw)

    return damage


def swap(path: Path) -> None:
    other = path_of(path.parent.parent, BLOCKS[1])
    assert other.exists()
    path.rename(path.with_suffix(".x"))
    other.rename(path)
    path.with_suffix(".x").rename(other)


def cut(to: int) -> Damage:
    return lambda path: os.truncate(path, to)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 4096)


def regrow(path: Path) -> None:
    """The data gains a sector before the trailer: the trailer is sound, the size is not."""
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + bytes(4096) + raw[4096:])


def directory(path: Path) -> None:
    path.unlink()
    (path / "deep").mkdir(parents=True)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


TRAILER_DAMAGE: dict[str, Damage] = {
    "flipped head": flip(4096 + 3),
    "flipped name": flip(4096 + 88 + 1024 + 2),
    "flipped page checksum": flip(4096 + 88 + 5),
    "flipped trailer checksum": flip(-1),
    "flipped padding": flip(-100),
    "names swapped": swap,
    "emptied": cut(0),
    "cut in the data": cut(300),
    "cut in the trailer": cut(8000),
    "cut to the trailer's size": cut(4096),
    "grown": grow,
    "grown before the trailer": regrow,
    "a directory": directory,
    "a link to itself": dangling,
    "a pipe": pipe,
}


@pytest.mark.parametrize("damage", TRAILER_DAMAGE.values(), ids=TRAILER_DAMAGE.keys())
@pytest.mark.parametrize("restarted", [False, True], ids=["known", "restarted"])
def test_a_damaged_file_is_a_miss_and_goes(
    nvme: tuple[Bench, Path], damage: Damage, restarted: bool
) -> None:
    bench, folder = nvme
    bench.open(max_idle=0)  # every pin opens the file anew
    bench.put(BLOCK)
    bench.put(BLOCKS[1])
    damage(path_of(folder, BLOCK))
    if restarted:
        bench.store.close()
        bench.open(max_idle=0)
    assert bench.store.hit(BLOCK) is None
    assert not os.path.lexists(path_of(folder, BLOCK))
    assert bench.count("corrupt_blocks_total", check="trailer") >= 1
    assert bench.count("device_healthy", device=bench.disks[0].name) == 1
    assert bench.put(BLOCK)
    assert bench.has(BLOCK)
    if damage is not swap:
        assert bench.has(BLOCKS[1])


def test_a_file_that_vanished_is_a_miss(nvme: tuple[Bench, Path]) -> None:
    bench, folder = nvme
    bench.open(max_idle=0)
    bench.put(BLOCK)
    path_of(folder, BLOCK).unlink()
    assert bench.store.hit(BLOCK) is None
    assert bench.store.stored_bytes == 0
    assert bench.count("evicted_bytes_total", reason="lost") == FILE_BYTES
    assert bench.put(BLOCK)
    assert bench.has(BLOCK)


def test_every_flipped_byte_of_the_data_is_noticed_by_its_page(
    memory: tuple[Bench, MemoryDisk],
) -> None:
    bench, disk = memory
    bench.put(BLOCK)
    pin = bench.store.hit(BLOCK)
    assert pin is not None
    with closing(pin):
        for position in range(BLOCK.length_bytes):
            disk.flip(BLOCK.id, 8 * position + position % 8)
            wrong = [page for page in range(8) if pin.page(page) is None]
            assert wrong == [position // 128]
            disk.flip(BLOCK.id, 8 * position + position % 8)
        assert bytes_of(pin, BLOCK) == DATA[:1024]


def test_a_dropped_block_is_gone_and_counted_once(bench: Bench) -> None:
    bench.put(BLOCK)
    one, two = bench.store.hit(BLOCK), bench.store.hit(BLOCK)
    assert one is not None
    assert two is not None
    bench.store.drop(one, "page")
    bench.store.drop(two, "page")
    assert bench.store.hit(BLOCK) is None
    assert list(bench.disks[0].scan()) == []
    assert bench.count("corrupt_blocks_total", check="page") == 1
    assert one.page(0) == DATA[:128]  # whoever holds it keeps the bytes
    one.close()
    two.close()


def test_dropping_an_old_pin_spares_the_block_that_replaced_it(bench: Bench) -> None:
    bench.put(BLOCK)
    old = bench.store.hit(BLOCK)
    assert old is not None
    bench.store.drop(old, "page")
    bench.put(BLOCK)
    bench.store.drop(old, "page")
    old.close()
    assert bench.has(BLOCK)


# -- failing disks


def failing(number: int, *ops: str) -> Callable[[str], None]:
    def fail(op: str) -> None:
        if op in ops:
            raise OSError(number, os.strerror(number))

    return fail


def test_a_full_disk_keeps_what_it_has_and_grows_back(memory: tuple[Bench, MemoryDisk]) -> None:
    bench, disk = memory
    disk.limit_bytes = 5 * FILE_BYTES
    stored = [bench.put(block) for block in BLOCKS[:10]]
    assert stored[:5] == [True] * 5
    assert not stored[5]
    assert disk.taken_bytes() <= disk.limit_bytes
    assert any(bench.has(block) for block in BLOCKS[:10])
    assert bench.store.devices[0].capacity_bytes < ROOMY_BYTES
    assert bench.count("device_healthy", device="memory") == 1
    disk.limit_bytes = ROOMY_BYTES
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
    pin = bench.store.hit(BLOCK)
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
    held = [pin for block in first if (pin := bench.store.hit(block))]
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
    assert bench.store.hit(BLOCK) is None
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
        assert bench.store.hit(BLOCK) is None
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
        assert bench.store.hit(BLOCK) is None
    assert bench.count("device_healthy", device="memory") == 0
    bench.store.close()
    assert disk.open_count == 0


# -- restart


def test_all_blocks_come_back_after_a_restart(bench: Bench) -> None:
    for number, block in enumerate(BLOCKS):
        bench.put(block, 0, 1 + number % 8)
    bench.store.close()
    store = bench.open(recover=False)
    assert max(store.recover()) == len(BLOCKS)
    assert not store.recovering
    assert store.stored_bytes == len(BLOCKS) * FILE_BYTES
    for number, block in enumerate(BLOCKS[:-1]):
        pin = store.hit(block)
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
    pin = store.hit(BLOCK)
    assert pin is not None
    store.drop(pin, "page")
    pin.close()
    assert store.stored_bytes == 0
    assert store.hit(BLOCK) is None
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


# -- threads


def test_writers_of_one_block_from_many_threads_lose_nothing(bench: Bench) -> None:
    barrier, problems = Barrier(8), []

    def work(seed: int) -> None:
        order = [(block, page) for block in BLOCKS[:4] for page in range(8)]
        random.Random(seed).shuffle(order)
        barrier.wait()
        for block, page in order:
            if not bench.put(block, page, page + 1 + seed % 2):
                problems.append((block, page))

    threads = [Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert all(bench.has(block) for block in BLOCKS[:4])
    assert bench.store.stored_bytes == 4 * FILE_BYTES
    device = bench.store.devices[0]
    assert (device.reserved_bytes, device.doomed_bytes) == (0, 0)


def test_readers_writers_and_eviction_at_once_never_show_a_wrong_byte(bench: Bench) -> None:
    capacity_bytes = 8 * FILE_BYTES
    bench.open(capacity_bytes, max_idle=2)
    problems: list[str] = []
    barrier = Barrier(6)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        barrier.wait()
        for _ in range(250):
            block = chance.choice(BLOCKS[:-1])
            if seed % 2:
                first = chance.randrange(8)
                bench.put(block, first, first + chance.randrange(1, 4))
            elif pin := bench.store.hit(block):
                with closing(pin):
                    for page in range(8):
                        expected = block_data(block, DATA)[page * 128 : page * 128 + 128]
                        if pin.present >> page & 1 and pin.page(page) != expected:
                            problems.append(f"{block} page {page}")
                    if chance.random() < 0.05:
                        bench.store.drop(pin, "page")

    def guarded(seed: int) -> None:
        try:
            work(seed)
        except BaseException as error:
            problems.append(repr(error))
            raise

    threads = [Thread(target=guarded, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    device = bench.store.devices[0]
    assert (device.reserved_bytes, device.doomed_bytes) == (0, 0)
    assert bench.store.stored_bytes <= capacity_bytes
    assert bench.count("device_healthy", device=bench.disks[0].name) == 1


class SlowOpenDisk(MemoryDisk):
    """A disk whose next `open` stops, after it looked, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping = False
        self.stopped, self.go = Event(), Event()

    def open(self, block_id: bytes):  # type: ignore[no-untyped-def]
        if not self.stopping:
            return super().open(block_id)
        self.stopping = False
        try:
            return super().open(block_id)
        finally:
            self.stopped.set()
            self.go.wait(20)


def test_a_block_written_again_while_a_reader_looks_for_it_is_not_lost() -> None:
    """The reader found no file; by the time it says so, a writer has stored the block anew."""
    disk = SlowOpenDisk()
    bench = Bench(disk)
    bench.open(max_idle=0)
    bench.put(BLOCK)
    del disk.files[BLOCK.id]
    disk.stopping = True
    reader = Thread(target=lambda: bench.has(BLOCK))
    reader.start()
    assert disk.stopped.wait(20)
    writer = Thread(target=lambda: bench.put(BLOCK))
    writer.start()
    disk.go.set()
    reader.join()
    writer.join()
    assert bench.store.stored_count == len(disk.files)
    bench.store.close()


def test_a_write_does_not_wait_for_a_reader_of_another_block() -> None:
    disk = SlowOpenDisk()
    bench = Bench(disk)
    bench.open(max_idle=0)
    bench.put(BLOCK)
    disk.stopping = True
    reader = Thread(target=lambda: bench.has(BLOCK))
    reader.start()
    assert disk.stopped.wait(20)
    other = next(block for block in BLOCKS[1:] if block.id[0] != BLOCK.id[0])
    assert bench.put(other)
    disk.go.set()
    reader.join()
    until(lambda: disk.open_count == 0, "all files are closed")
    bench.store.close()


def test_a_descriptor_reads_from_the_block_file(nvme: tuple[Bench, Path]) -> None:
    bench, _ = nvme
    bench.put(BLOCK)
    pin = bench.store.hit(BLOCK)
    assert pin is not None
    with closing(pin):
        assert os.pread(pin.fileno(), 1024, 0) == DATA[:1024]
        opened = pin.opened
        assert opened is not None
        assert isinstance(opened.file, NvmeFile)


def test_a_name_as_long_as_allowed_is_stored(bench: Bench) -> None:
    name = ObjectName("b" * 255, "é" * 512)
    block = blocks_of(version_of(DATA, name, '"' + "e" * 254 + '"'))[0]
    assert bench.put(block)
    bench.store.close()
    bench.open()
    assert bench.has(block)


def test_a_store_says_what_it_holds(bench: Bench) -> None:
    bench.put(BLOCK)
    assert bench.count("stored_bytes") == FILE_BYTES
    assert bench.count("stored_blocks") == 1
    assert bench.count("capacity_bytes") == ROOMY_BYTES
    assert NAME.key in str(BLOCK)
