"""Between taking a block out of the index and unlinking its file, the block is not stored anew.

Story: eviction unlinks outside the lock. A writer that stored the same block in that moment lost
its new file to the unlink: the index named a file that was gone.
"""

from __future__ import annotations

from threading import Thread

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import checksum
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion
from cachesvc.disk.memory import MemoryDisk
from cachesvc.metrics import Metrics
from cachesvc.store import Store

GEOMETRY = Geometry(8192, 4096, 4096, 8192)
DATA = memoryview(bytes(8192))
SUMS = checksum(DATA[:4096]) * 2


def block(number: int) -> BlockRef:
    return BlockRef(ObjectVersion(ObjectName("b", f"k{number}"), '"e"', 8192), 0, GEOMETRY)


class MeddlingDisk(MemoryDisk):
    """A writer stores the block anew at the moment when its file is about to be unlinked."""

    store: Store
    writer: Thread | None = None
    stored_again: bool | None = None

    def unlink(self, block_id: bytes) -> None:
        if self.writer is None and block_id == block(0).id:
            self.writer = Thread(target=self._write, daemon=True)
            self.writer.start()
            self.writer.join(0.2)  # it may wait for the old file to be gone
        super().unlink(block_id)

    def _write(self) -> None:
        self.stored_again = self.store.write(block(0), 0, DATA, SUMS)

    def written(self) -> bool | None:
        assert self.writer is not None
        self.writer.join(20)
        return self.stored_again


def test_a_block_that_leaves_does_not_take_its_successor_along() -> None:
    disk = MeddlingDisk()
    disk.store = store = Store([disk], 4 * (8192 + 4096), Metrics())
    assert list(store.recover()) == []
    number = 0
    while disk.writer is None:
        assert store.write(block(number), 0, DATA, SUMS)
        number += 1
    assert disk.written()
    assert block(0).id in disk.files
    assert store.stored_count == len(disk.files)
    store.close()


def test_a_block_that_is_none_does_not_take_its_successor_along() -> None:
    """Its file was damaged, which a reader found; a writer comes before the file is removed."""
    disk = MeddlingDisk()
    disk.store = store = Store([disk], 1 << 20, Metrics(), max_idle_open_count=0)
    assert list(store.recover()) == []
    assert store.write(block(0), 0, DATA, SUMS)
    disk.files[block(0).id][-1] ^= 1
    pin = store.pin(block(0))
    if pin is not None:  # the writer was here first, and the reader looked again
        assert pin.page(0) == bytes(4096)
        pin.close()
    assert disk.written() is not None
    assert store.stored_count == len(disk.files)
    assert store.write(block(0), 0, DATA, SUMS)
    assert store.stored_count == len(disk.files) == 1
    store.close()
