"""Pages that were found right: for how long the kernel may send them without another check."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.disk.base import FileState
from cachesvc.disk.memory import MemoryDisk
from cachesvc.disk.nvme import NvmeDisk, NvmeFile
from cachesvc.vouched import SETTLED_NS, TRUST_S, Vouched

PAGE = 4096
BLOCK = bytes(16)


class Clock:
    """Both clocks of a Vouched; the file's time is that of its last write, plus `age_ns`."""

    def __init__(self, file: NvmeFile) -> None:
        self.file = file
        self.age_ns = SETTLED_NS
        self.now_s = 0.0

    def vouched(self) -> Vouched:
        return Vouched(lambda: self.file.state().changed_ns + self.age_ns, lambda: self.now_s)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[NvmeFile]:
    disk = NvmeDisk(tmp_path)
    file = disk.create(BLOCK)
    file.pwrite(bytes(4 * PAGE), 0)
    yield file
    file.close()
    disk.close()


@pytest.fixture
def clock(file: NvmeFile) -> Clock:
    if not file.in_memory(0, PAGE):
        pytest.skip("this kernel does not say what of a file is in memory (Linux 6.5 does)")
    return Clock(file)


def holds(vouched: Vouched, file: NvmeFile, pages: int) -> bool:
    return vouched.holds(file, pages, 0, 4 * PAGE) is not None


def test_pages_are_vouched_for_once_they_were_noted(file: NvmeFile, clock: Clock) -> None:
    vouched = clock.vouched()
    assert not holds(vouched, file, 0b0001)
    vouched.note(file, file.state(), 0b0011)
    vouched.note(file, file.state(), 0b1000)
    assert holds(vouched, file, 0b1011)
    assert not holds(vouched, file, 0b0100)
    assert holds(vouched, file, 0b1011), "asking for another page changes nothing"


@pytest.mark.parametrize("change", ["write", "truncate", "write the same"])
def test_a_file_that_was_written_is_vouched_for_no_more(
    file: NvmeFile, clock: Clock, change: str
) -> None:
    vouched, before = clock.vouched(), file.state()
    vouched.note(file, before, 0b1111)
    while file.state() == before:  # the clock of files counts in ticks
        if change == "truncate":
            os.ftruncate(file.fileno(), 4 * PAGE - 1)
        else:
            file.pwrite(b"\0" if change == "write the same" else b"\1", 100)
    assert not holds(vouched, file, 0b0001)
    assert not holds(vouched, file, 0b1000)
    vouched.note(file, before, 0b1111)
    assert not holds(vouched, file, 0b0001), "it changed while it was checked"


def test_nothing_is_noted_that_might_have_been_written_at_the_same_time(
    file: NvmeFile, clock: Clock
) -> None:
    vouched = clock.vouched()
    clock.age_ns = SETTLED_NS - 1
    vouched.note(file, file.state(), 0b1111)
    assert not holds(vouched, file, 0b0001)


def test_it_is_not_trusted_for_long(file: NvmeFile, clock: Clock) -> None:
    vouched = clock.vouched()
    vouched.note(file, file.state(), 0b0001)
    clock.now_s = TRUST_S
    assert holds(vouched, file, 0b0001)
    vouched.note(file, file.state(), 0b0010)
    clock.now_s = TRUST_S + 1
    assert not holds(vouched, file, 0b0001)
    assert not holds(vouched, file, 0b0010), "as old as the oldest"


def test_what_left_memory_takes_the_trust_in_the_whole_file_with_it(
    file: NvmeFile, clock: Clock
) -> None:
    vouched = clock.vouched()
    vouched.note(file, file.state(), 0b1111)
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if file.in_memory(0, 4 * PAGE):
        pytest.skip("this file system keeps all of a file in memory")
    assert not vouched.holds(file, 0b0010, PAGE, 2 * PAGE)
    assert file.pread(4 * PAGE, 0) == bytes(4 * PAGE)
    assert file.in_memory(0, 4 * PAGE)
    assert not holds(vouched, file, 0b0001)


def test_nobody_vouches_for_a_memory_file() -> None:
    file = MemoryDisk().create(BLOCK)
    file.pwrite(bytes(PAGE), 0)
    vouched = Vouched(lambda: SETTLED_NS, lambda: 0.0)
    vouched.note(file, file.state(), 1)
    assert file.state() == FileState(PAGE, 0)
    assert not vouched.holds(file, 1, 0, PAGE)
