"""While a node recovers, a hit waits neither for the writer of another block nor for its own.

Story: whoever looked for a block that was not in the index yet took the lock of the block's stripe,
which writers hold while they write: a lane thread, with all its connections, stood still for as
long as a disk took for the data of some other block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Event, Thread, current_thread, main_thread

import pytest

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import checksum
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion
from cachesvc.disk.memory import MemoryDisk, MemoryFile
from cachesvc.metrics import Metrics
from cachesvc.pins import Pin
from cachesvc.store import Store

LIMIT_S = 20  # for a wait that should not be
DATA = bytes(range(256)) * 2


def block(number: int) -> BlockRef:
    version = ObjectVersion(ObjectName("bucket", f"key{number}"), '"etag"', 512)
    return BlockRef(version, 0, Geometry(512, 512, 512, 512))


BLOCK = block(0)
NEIGHBOUR = next(b for b in map(block, range(1, 9999)) if b.id[0] == BLOCK.id[0])


def write(store: Store, one: BlockRef) -> bool:
    return store.write(one, 0, memoryview(DATA), checksum(DATA))


@pytest.fixture
def disk() -> MemoryDisk:
    """Left by an earlier run, with one block."""
    disk = MemoryDisk()
    old = Store([disk], 1 << 20, Metrics())
    assert write(old, BLOCK)
    old.close()
    return disk


class Stop:
    """Where threads other than the main one are stopped, once each has come by."""

    def __init__(self) -> None:
        self.stopped, self.go = Event(), Event()

    def __call__(self) -> None:
        if current_thread() is not main_thread():
            self.stopped.set()
            assert self.go.wait(LIMIT_S), "nobody let it go on"


@contextmanager
def stopped_writer(store: Store, one: BlockRef, stop: Stop) -> Iterator[list[bool]]:
    """While somebody writes the block and has come to the stop. Gives whether it was stored."""
    stored: list[bool] = []
    writer = Thread(target=lambda: stored.append(write(store, one)))
    writer.start()
    try:
        assert stop.stopped.wait(LIMIT_S)
        yield stored
    finally:
        stop.go.set()
        writer.join()


def hit(store: Store, one: BlockRef) -> Pin | None:
    """A pin, asked for as a lane thread does, which must not take long."""
    pins: list[Pin | None] = []
    reader = Thread(target=lambda: pins.append(store.pin(one)), daemon=True)
    reader.start()
    reader.join(2)
    assert pins, "the hit waits"
    return pins[0]


def stop_at(disk: MemoryDisk, op: str, who: str) -> Stop:
    stop = Stop()

    def fail(asked: str) -> None:
        if asked == op and who == current_thread().name:
            stop()

    disk.fail = fail
    return stop


@contextmanager
def writing(disk: MemoryDisk, store: Store, one: BlockRef, op: str) -> Iterator[list[bool]]:
    stop = Stop()
    writers: list[str] = []

    def fail(asked: str) -> None:
        if asked == "create":
            writers.append(current_thread().name)
        if asked == op and current_thread().name in writers:
            stop()

    disk.fail = fail
    with stopped_writer(store, one, stop) as stored:
        yield stored


def test_a_hit_does_not_wait_for_the_writer_of_another_block(disk: MemoryDisk) -> None:
    store = Store([disk], 1 << 20, Metrics())
    with writing(disk, store, NEIGHBOUR, "pwrite") as stored:
        pin = hit(store, BLOCK)
        assert pin is not None
        with closing(pin):
            assert pin.page(0) == DATA
    assert stored == [True]
    store.close()


def test_a_lost_block_is_a_miss_at_once(disk: MemoryDisk) -> None:
    store = Store([disk], 1 << 20, Metrics(), max_idle_open_count=0)
    assert list(store.recover())
    with writing(disk, store, NEIGHBOUR, "pwrite"):
        del disk.files[BLOCK.id]
        assert hit(store, BLOCK) is None
    assert store.stored_count == len(disk.files) == 1
    store.close()


def test_a_block_that_is_being_made_is_a_miss_until_it_is_there(disk: MemoryDisk) -> None:
    store = Store([disk], 1 << 20, Metrics())
    with writing(disk, store, NEIGHBOUR, "pwrite") as stored:
        assert hit(store, NEIGHBOUR) is None
    assert stored == [True]
    pin = hit(store, NEIGHBOUR)
    assert pin is not None
    pin.close()
    store.close()
    assert disk.open_count == 0


def test_a_block_made_while_a_reader_opens_it_is_open_once(
    disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader began to look before there was a file, and finds it whole before it is shared."""
    store = Store([disk], 1 << 20, Metrics())
    looking = stop_at(disk, "open", "reader")
    made, real = Stop(), MemoryFile.taken_bytes

    def taken_bytes(file: MemoryFile) -> int:
        if current_thread().name == "writer" and file.size_bytes() > len(DATA):
            made()
        return real(file)

    monkeypatch.setattr(MemoryFile, "taken_bytes", taken_bytes)
    pins: list[Pin | None] = []
    reader = Thread(target=lambda: pins.append(store.pin(NEIGHBOUR)), name="reader")
    reader.start()
    assert looking.stopped.wait(LIMIT_S)
    writer = Thread(target=lambda: write(store, NEIGHBOUR), name="writer")
    writer.start()
    assert made.stopped.wait(2), "the writer waits for the reader"
    looking.go.set()
    reader.join()
    made.go.set()
    writer.join()
    assert pins == [None]
    assert store.stored_count == 1
    pin = store.pin(NEIGHBOUR)
    assert pin is not None
    pin.close()
    store.close()
    assert disk.open_count == 0


def test_a_trailer_that_was_read_before_pages_were_added_is_not_believed(
    disk: MemoryDisk,
) -> None:
    """The reader reads the trailer; the block is extended and closed again; then it is shared."""
    two = BlockRef(
        ObjectVersion(ObjectName("bucket", "two"), '"etag"', 1024),
        0,
        Geometry(1024, 512, 512, 1024),
    )
    store = Store([disk], 1 << 20, Metrics(), max_idle_open_count=0)
    assert list(store.recover())
    assert write(store, two)
    proving, real = Stop(), MemoryFile.pread

    def pread(file: MemoryFile, size_bytes: int, offset: int, *, wait: bool = True) -> bytes:
        data = real(file, size_bytes, offset)
        if current_thread().name == "reader" and not proving.stopped.is_set():
            proving()
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFile, "pread", pread)
        pins: list[Pin | None] = []
        reader = Thread(target=lambda: pins.append(store.pin(two)), name="reader")
        reader.start()
        assert proving.stopped.wait(LIMIT_S)
        assert store.write(two, 1, memoryview(DATA), checksum(DATA))
        proving.go.set()
        reader.join()
    (pin,) = pins
    assert pin is not None
    assert pin.present == 0b11
    pin.close()
    store.close()
    assert disk.open_count == 0
