"""One writer at a time made room on a device, and held the others up while the file system removed
its victims: in cold fills of a full cache, writes spent half of their time in that queue.
"""

from __future__ import annotations

from threading import Event, Thread

from cachesvc.disk.memory import MemoryDisk
from tests.support import FILE_BYTES, GEOMETRY, blocks_of, pattern, store_pages, version_of
from tests.unit.store.bench import Bench

CAPACITY = 70  # blocks, so that one that leaves is not much of it
DATA = pattern((CAPACITY + 2) * GEOMETRY.block_bytes)
BLOCKS = blocks_of(version_of(DATA))


def test_a_writer_makes_room_while_another_ones_victim_is_being_removed() -> None:
    disk = MemoryDisk()
    bench = Bench(disk)
    bench.open(CAPACITY * FILE_BYTES)

    def put(number: int) -> bool:
        start = number * GEOMETRY.block_bytes
        return store_pages(bench.store, BLOCKS[number], DATA[start : start + GEOMETRY.block_bytes])

    assert all(put(number) for number in range(CAPACITY))
    leaving, go = Event(), Event()

    def hold_up(op: str) -> None:
        if op == "unlink" and not leaving.is_set():
            leaving.set()
            assert go.wait(20)

    disk.fail = hold_up
    stored: list[bool] = []
    first = Thread(target=lambda: stored.append(put(CAPACITY)))
    second = Thread(target=lambda: stored.append(put(CAPACITY + 1)))
    first.start()
    try:
        assert leaving.wait(20)
        second.start()
        second.join(10)
        assert not second.is_alive(), "the second waits for what leaves for the first"
        assert stored == [True]
        assert len(disk.files) <= CAPACITY, "something was written before its room was there"
    finally:
        go.set()
        first.join()
        second.join()
    assert stored == [True, True]
    assert bench.store.stored_count == len(disk.files) <= CAPACITY
    bench.store.close()
