"""After recovery every file on a disk is in the index, or gone: also if one could not be opened.

Story: a node that restarted while descriptors were short skipped the blocks that it could not open.
Their files stayed for ever: in no index, found by nobody, and not counted against the capacity.
"""

from __future__ import annotations

import errno

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import checksum
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion
from cachesvc.disk.memory import MemoryDisk
from cachesvc.metrics import Metrics
from cachesvc.store import Store

VERSION = ObjectVersion(ObjectName("bucket", "key"), '"etag"', 512)
BLOCK = BlockRef(VERSION, 0, Geometry(512, 512, 512, 512))


def _restarted(failing_opens: int) -> tuple[Store, MemoryDisk]:
    disk = MemoryDisk()
    old = Store([disk], 1 << 20, Metrics())
    assert old.write(BLOCK, 0, memoryview(bytes(512)), checksum(bytes(512)))
    old.close()
    left = failing_opens

    def fail(op: str) -> None:
        nonlocal left
        if op == "open" and left:
            left -= 1
            raise OSError(errno.EMFILE, "too many open files")

    disk.fail = fail
    store = Store([disk], 1 << 20, Metrics())
    assert list(store.recover())
    return store, disk


def test_a_block_that_can_be_opened_the_second_time_is_kept() -> None:
    store, disk = _restarted(1)
    assert list(disk.files) == [BLOCK.id]
    assert store.stored_count == 1


def test_a_block_that_cannot_be_opened_twice_is_removed() -> None:
    store, disk = _restarted(2)
    assert (list(disk.files), store.stored_count) == ([], 0)
