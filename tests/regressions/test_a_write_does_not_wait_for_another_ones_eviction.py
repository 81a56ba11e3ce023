"""Writers make room beside one another, and what leaves for one is nothing to the next.

Story: one writer at a time made room on a device, and held the others up while the file system
removed its victims: in cold fills of a full cache, writes spent half of their time in that queue.
Once they no longer did, a block that was just leaving was not stored again, a look beside another
one's eviction found that evicting had been in vain, and a block that was dropped while the log
could not be written was waited for without end.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import NoReturn

import pytest

from cachesvc import stock
from cachesvc.disk.memory import MemoryDisk
from cachesvc.stock import SPACE_INTERVAL_S
from tests.support import FILE_BYTES, GEOMETRY, blocks_of, pattern, store_pages, version_of
from tests.unit.store.bench import Bench

CAPACITY = 70  # blocks, so that one that leaves is not much of it
DATA = pattern(400 * GEOMETRY.block_bytes)
BLOCKS = blocks_of(version_of(DATA))


class Slow(MemoryDisk):
    """A disk whose first removal waits until it is let `go`."""

    def __init__(self, limit_bytes: int = 1 << 62) -> None:
        super().__init__(limit_bytes=limit_bytes)
        self.leaving, self.go = Event(), Event()

    def hold_up(self) -> None:
        self.fail = self._hold_up

    def _hold_up(self, op: str) -> None:
        if op == "unlink" and not self.leaving.is_set():
            self.leaving.set()
            assert self.go.wait(20)


def put(bench: Bench, number: int) -> bool:
    start = number * GEOMETRY.block_bytes
    return store_pages(bench.store, BLOCKS[number], DATA[start : start + GEOMETRY.block_bytes])


@contextmanager
def evicting(bench: Bench, disk: Slow, number: int) -> Iterator[list[bool]]:
    """While a writer of this block waits for its victims to be removed; at the end, what came of it
    and of others that were begun.
    """
    disk.hold_up()
    stored: list[bool] = []
    first = Thread(target=lambda: stored.append(put(bench, number)))
    first.start()
    try:
        assert disk.leaving.wait(20)
        yield stored
    finally:
        disk.go.set()
        first.join(20)
    assert not first.is_alive()


def begun(work: Callable[[], object]) -> Thread:
    thread = Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def full() -> Iterator[tuple[Bench, Slow]]:
    disk = Slow()
    bench = Bench(disk)
    bench.open(CAPACITY * FILE_BYTES)
    assert all(put(bench, number) for number in range(CAPACITY))
    yield bench, disk
    device = bench.store.devices[0]
    assert (device.reserved_bytes, device.doomed_bytes, device.leaving) == (0, 0, {})
    assert bench.store.stored_count == len(disk.files) <= CAPACITY
    bench.store.close()


def test_a_writer_makes_room_while_another_ones_victim_is_being_removed(
    full: tuple[Bench, Slow],
) -> None:
    bench, disk = full
    with evicting(bench, disk, CAPACITY) as stored:
        second = begun(lambda: stored.append(put(bench, CAPACITY + 1)))
        second.join(10)
        assert not second.is_alive(), "the second waits for what leaves for the first"
        assert stored == [True]
        assert len(disk.files) <= CAPACITY, "something was written before its room was there"
    assert stored == [True, True]


def test_a_block_that_is_leaving_is_stored_again_once_it_is_gone(full: tuple[Bench, Slow]) -> None:
    bench, disk = full
    with evicting(bench, disk, CAPACITY) as stored:
        (again, *_) = [
            n for n, one in enumerate(BLOCKS) if one.id in bench.store.devices[0].leaving
        ]
        second = begun(lambda: stored.append(put(bench, again)))
        second.join(0.2)  # it may wait for its old file, and must not fail meanwhile
        assert stored == []
    second.join(20)
    assert stored == [True, True]
    assert bench.count("unstored_bytes_total") == 0


def test_a_block_that_was_dropped_without_a_word_is_waited_for_by_nobody(
    full: tuple[Bench, Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log stands on a full disk."""
    bench, disk = full

    def unwritten(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pin = bench.store.pin(BLOCKS[3])
    assert pin is not None
    with monkeypatch.context() as patch:
        patch.setattr(stock.log, "warning", unwritten)
        with pytest.raises(OSError, match="space"):
            bench.store.drop(pin, "page")
    pin.close()
    assert bench.store.devices[0].leaving == {}
    assert BLOCKS[3].id not in disk.files
    assert put(bench, 3)


def test_a_look_beside_an_eviction_does_not_find_it_in_vain() -> None:
    """Others fill the file system; before the first victims are gone, a second writer looks."""
    total_bytes = len(BLOCKS) * FILE_BYTES
    disk = Slow(limit_bytes=total_bytes)
    bench = Bench(disk)
    bench.open(total_bytes)
    assert all(put(bench, number) for number in range(300))
    bench.clock.now += SPACE_INTERVAL_S
    headroom_bytes = total_bytes // 32
    disk.foreign_bytes = total_bytes - disk.taken_bytes() - headroom_bytes // 2 + FILE_BYTES
    with evicting(bench, disk, 300) as stored:
        bench.clock.now += SPACE_INTERVAL_S
        second = begun(lambda: stored.append(put(bench, 301)))
        second.join(0.2)
        assert bench.store.devices[0].vain_until <= bench.clock.now
    second.join(20)
    assert stored == [True, True]
    assert all(put(bench, number) for number in range(302, 310))
    bench.store.close()
