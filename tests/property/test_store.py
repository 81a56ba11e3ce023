"""The store against a dict, in any order of calls, faults and restarts: never a wrong byte, never
too much space.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cachesvc.core.blocks import BlockRef
from cachesvc.disk.base import Disk
from cachesvc.disk.memory import MemoryDisk
from cachesvc.disk.nvme import NvmeDisk
from cachesvc.metrics import Metrics
from cachesvc.pins import Pin
from cachesvc.stock import FULL_REST_S, SPACE_INTERVAL_S
from cachesvc.store import Store
from tests.support import (
    FILE_BYTES,
    GEOMETRY,
    Clock,
    block_data,
    blocks_of,
    pattern,
    store_pages,
    version_of,
)

DATA = pattern(5 * GEOMETRY.block_bytes + 200)
BLOCKS = [
    *blocks_of(version_of(DATA)),
    *blocks_of(version_of(DATA, etag='"v2"')),
]
CAPACITY_BYTES = 2 * 3 * FILE_BYTES + 2 * FILE_BYTES
PAGE = GEOMETRY.page_bytes

blocks = st.sampled_from(BLOCKS)
pages = st.integers(0, 7)
counts = st.integers(1, 8)
PROFILE = settings(max_examples=60, stateful_step_count=50)


def page_data(block: BlockRef, page: int, fill: int) -> bytes:
    """What fill number `fill` writes into a page: each one something else."""
    return bytes(byte ^ fill for byte in block_data(block, DATA)[page * PAGE : (page + 1) * PAGE])


class StoreMachine(RuleBasedStateMachine):
    """The model: the bytes of every page that was ever said to be stored, until its block left."""

    def __init__(self) -> None:
        super().__init__()
        self.disks = self.make_disks()
        self.clock = Clock()
        self.pins: list[tuple[Pin, BlockRef, dict[int, bytes]]] = []
        self.model: dict[bytes, dict[int, bytes]] = {}
        self.fill = 0
        self.open_store(CAPACITY_BYTES)

    def make_disks(self) -> list[Disk]:
        raise NotImplementedError

    def disk_bytes(self) -> int:
        """What the block files on the disks take, by the disks' own account."""
        raise NotImplementedError

    def open_store(self, capacity_bytes: int) -> None:
        self.metrics = Metrics()
        self.capacity_bytes = capacity_bytes
        self.store = Store(
            self.disks, capacity_bytes, self.metrics, clock=self.clock, max_idle_open_count=2
        )
        self.recovery = self.store.recover()

    @rule(block=blocks, first=pages, count=counts)
    def write(self, block: BlockRef, first: int, count: int) -> None:
        beyond = min(first + count, block.page_count)
        if first >= beyond:
            return
        self.fill += 1
        data = {page: page_data(block, page, self.fill % 251) for page in range(first, beyond)}
        whole = b"".join(page_data(block, page, self.fill % 251) for page in range(8))
        known = self.pages_of(block)
        if store_pages(self.store, block, whole, first, beyond):
            self.model[block.id] = {**data, **known}
        else:
            self.model[block.id] = known

    def pages_of(self, block: BlockRef) -> dict[int, bytes]:
        """What the store has of a block now; each page is what the model says."""
        pin = self.store.pin(block)
        if pin is None:
            return {}
        with closing(pin):
            return self.check(pin, block)

    def check(self, pin: Pin, block: BlockRef) -> dict[int, bytes]:
        expected = self.model[block.id]
        found = {}
        for page in range(block.page_count):
            if pin.present >> page & 1:
                data = pin.page(page)
                assert data == expected[page]
                found[page] = expected[page]
        return found

    @rule(block=blocks)
    def read(self, block: BlockRef) -> None:
        self.pages_of(block)

    @rule(block=blocks)
    def hold(self, block: BlockRef) -> None:
        pin = self.store.pin(block)
        if pin is not None:
            self.pins.append((pin, block, self.check(pin, block)))

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        pin, _, _ = self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))
        pin.close()

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        pin, _, _ = data.draw(st.sampled_from(self.pins))
        self.store.drop(pin, "page")

    @precondition(lambda self: self.store.recovering)
    @rule()
    def recover_a_step(self) -> None:
        next(self.recovery, None)

    @rule()
    def recover(self) -> None:
        list(self.recovery)

    @rule(capacity_bytes=st.sampled_from([CAPACITY_BYTES, CAPACITY_BYTES // 2]))
    def restart(self, capacity_bytes: int) -> None:
        list(self.recovery)
        known = {block.id for block in BLOCKS if self.pages_of(block)}
        for pin, _, _ in self.pins:
            pin.close()
        self.pins.clear()
        self.store.close()
        self.check_nothing_open()
        self.open_store(capacity_bytes)
        list(self.recovery)
        if capacity_bytes == CAPACITY_BYTES and not any(d.failure for d in self.store.devices):
            assert known <= {block.id for block in BLOCKS if self.pages_of(block)}

    def check_nothing_open(self) -> None:
        raise NotImplementedError

    @invariant()
    def pins_keep_their_bytes(self) -> None:
        for pin, block, pages in self.pins:
            for page, data in pages.items():
                assert pin.present >> page & 1
                assert pin.pread(page * PAGE, page * PAGE + len(data)) == data
                assert pin.page(page) == data
            assert pin.present & ~block.all_pages == 0

    @invariant()
    def no_more_space_is_taken_than_allowed(self) -> None:
        for device in self.store.devices:
            assert device.reserved_bytes == 0
            assert device.doomed_bytes >= 0
        if not self.store.recovering:
            used = sum(device.used_bytes for device in self.store.devices)
            assert used <= self.capacity_bytes
            assert self.disk_bytes() <= self.store.stored_bytes

    @invariant()
    def unlinked_files_count_exactly_while_they_are_open(self) -> None:
        gone = {id(p.opened): p.opened for p, _, _ in self.pins if p.opened and not p.opened.live}
        doomed = sum(opened.file.taken_bytes() for opened in gone.values())
        assert sum(device.doomed_bytes for device in self.store.devices) == doomed

    def teardown(self) -> None:
        for pin, _, _ in self.pins:
            pin.close()
        self.store.close()
        self.check_nothing_open()
        for disk in self.disks:
            disk.close()


class MemoryMachine(StoreMachine):
    """With disks that fill up."""

    def make_disks(self) -> list[Disk]:
        self.memories = [MemoryDisk("one"), MemoryDisk("two")]
        return [*self.memories]

    def disk_bytes(self) -> int:
        return sum(disk.taken_bytes() for disk in self.memories)

    def check_nothing_open(self) -> None:
        assert [disk.open_count for disk in self.memories] == [0, 0]

    @rule(which=st.integers(0, 1), files=st.integers(0, 6))
    def limit_the_disk(self, which: int, files: int) -> None:
        self.memories[which].limit_bytes = files * FILE_BYTES

    @rule(files=st.integers(0, 3))
    def others_take(self, files: int) -> None:
        self.clock.now += SPACE_INTERVAL_S
        for disk in self.memories:
            disk.foreign_bytes = files * FILE_BYTES

    @rule()
    def rest(self) -> None:
        self.clock.now += FULL_REST_S
        for disk in self.memories:
            disk.limit_bytes = 1 << 30
            disk.foreign_bytes = 0


class DamagedMachine(MemoryMachine):
    """With bits that flip, short resources and disks that break. What is lost is lost: the model
    is asked only whether what is there is right.
    """

    def check(self, pin: Pin, block: BlockRef) -> dict[int, bytes]:
        expected, found = self.model[block.id], {}
        for page in range(block.page_count):
            if not pin.present >> page & 1:
                continue
            try:
                data = pin.page(page)
            except OSError as error:
                self.store.read_failed(pin, error)
                continue
            if data is None:
                self.store.drop(pin, "page")
                return {}
            assert data == expected[page]
            found[page] = data
        return found

    @rule(data=st.data(), bit=st.integers(0, 8 * FILE_BYTES - 1))
    def flip(self, data: st.DataObject, bit: int) -> None:
        files = [(disk, name) for disk in self.memories for name in sorted(disk.files)]
        files = [(disk, name) for disk, name in files if disk.files[name]]
        if files:
            disk, name = data.draw(st.sampled_from(files))
            disk.flip(name, bit)
            for pin, block, _ in self.pins:
                if block.id == name:
                    pin.close()
            self.pins = [kept for kept in self.pins if kept[0].opened is not None]

    @rule(
        which=st.integers(0, 1),
        op=st.sampled_from(["open", "create", "pread", "pwrite", "unlink", "scan"]),
        number=st.sampled_from([errno.EIO, errno.EMFILE, errno.ENOSPC]),
    )
    def break_a_disk(self, which: int, op: str, number: int) -> None:
        def fail(asked: str) -> None:
            if asked == op:
                raise OSError(number, os.strerror(number))

        self.memories[which].fail = fail

    @rule()
    def mend(self) -> None:
        for disk in self.memories:
            disk.fail = lambda _op: None

    @rule(capacity_bytes=st.sampled_from([CAPACITY_BYTES, CAPACITY_BYTES // 2]))
    def restart(self, capacity_bytes: int) -> None:
        for pin, _, _ in self.pins:
            pin.close()
        self.pins.clear()
        self.store.close()
        self.check_nothing_open()
        self.open_store(capacity_bytes)

    @invariant()
    def pins_keep_their_bytes(self) -> None:
        for pin, _, pages in self.pins:
            for page, data in pages.items():
                try:
                    assert pin.page(page) in (data, None)
                except OSError:
                    continue

    @invariant()
    def no_more_space_is_taken_than_allowed(self) -> None:
        for device in self.store.devices:
            assert device.reserved_bytes == 0
            assert device.doomed_bytes >= 0
        if not self.store.recovering:
            used = sum(device.used_bytes for device in self.store.devices)
            assert used <= self.capacity_bytes


class NamedDisk(NvmeDisk):
    """A directory that goes by its last name, so that placement is the same on every run."""

    @property
    def name(self) -> str:
        return self._directory.name


class NvmeMachine(StoreMachine):
    """On two real directories."""

    def make_disks(self) -> list[Disk]:
        self.root = Path(tempfile.mkdtemp(prefix="cachesvc-test-"))
        self.open_before = len(os.listdir("/proc/self/fd"))
        return [NamedDisk(self.root / "one"), NamedDisk(self.root / "two")]

    def disk_bytes(self) -> int:
        return sum(path.stat().st_blocks * 512 for path in self.root.glob("*/blocks/*/*"))

    def check_nothing_open(self) -> None:
        assert len(os.listdir("/proc/self/fd")) == self.open_before + 2  # their locks

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.root)


TestStoreInMemory = MemoryMachine.TestCase
TestStoreInMemory.settings = PROFILE
TestStoreWithDamage = DamagedMachine.TestCase
TestStoreWithDamage.settings = PROFILE
TestStoreOnDisk = NvmeMachine.TestCase
TestStoreOnDisk.settings = settings(max_examples=25, stateful_step_count=40)
