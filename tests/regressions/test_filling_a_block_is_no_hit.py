"""A scan of blocks that are filled and never read again does not flush the blocks that are read.

Story: a fill writes a block in several runs, and each run, each look for missing pages, counted as
a hit. A block was as hot as a block can be before anybody had read it, and S3-FIFO evicted what was
really hot.
"""

from __future__ import annotations

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import checksum
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion
from cachesvc.disk.memory import MemoryDisk
from cachesvc.metrics import Metrics
from cachesvc.store import Store

GEOMETRY = Geometry(block_bytes=65536, page_bytes=4096, extent_min_bytes=16384)
FILE_BYTES = 65536 + 4096
ROOM_COUNT, HOT_COUNT, SCAN_COUNT = 100, 40, 300


def block(number: int) -> BlockRef:
    version = ObjectVersion(ObjectName("b", f"k{number}"), '"e"', GEOMETRY.block_bytes)
    return BlockRef(version, 0, GEOMETRY)


def fill(store: Store, number: int) -> None:
    """Four runs, as a flight writes them."""
    data = bytes(16384)
    sums = checksum(data[:4096]) * 4
    for first_page in range(0, 16, 4):
        assert store.write(block(number), first_page, memoryview(data), sums)


def read(store: Store, number: int) -> bool:
    pin = store.pin(block(number))
    if pin is not None:
        pin.close()
    return pin is not None


def test_a_scan_of_filled_blocks_does_not_flush_the_blocks_that_are_read() -> None:
    store = Store([MemoryDisk()], (ROOM_COUNT + 1) * FILE_BYTES, Metrics())
    assert list(store.recover()) == []
    for number in range(HOT_COUNT):
        fill(store, number)
    for _ in range(3):
        assert all(read(store, number) for number in range(HOT_COUNT))
    for number in range(1000, 1000 + SCAN_COUNT):
        fill(store, number)
    assert sum(read(store, number) for number in range(HOT_COUNT)) == HOT_COUNT
    store.close()
