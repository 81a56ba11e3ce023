"""A stray file where one of the 256 folders of a data directory should be is removed.

Story: opening a block below it failed with ENOTDIR, which took the whole device out of use.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import checksum
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion
from cachesvc.disk.nvme import NvmeDisk
from cachesvc.metrics import Metrics
from cachesvc.store import Store

BLOCK = BlockRef(ObjectVersion(ObjectName("b", "k"), '"e"', 5), 0, Geometry())
DATA = memoryview(b"hello")


def test_a_file_in_place_of_a_folder_costs_no_device(tmp_path: Path) -> None:
    with closing(NvmeDisk(tmp_path)) as disk:
        folder = tmp_path / "blocks" / BLOCK.id.hex()[:2]
        for recovered_first in (False, True):
            folder.write_bytes(b"not a folder")
            store = Store([disk], 1 << 30, Metrics())
            if recovered_first:
                assert list(store.recover()) == []
            assert store.pin(BLOCK) is None
            assert store.write(BLOCK, 0, DATA, checksum(DATA))
            assert not store.devices[0].failure
            pin = store.pin(BLOCK)
            assert pin is not None
            assert pin.page(0) == b"hello"
            pin.close()
            store.close()
            disk.unlink(BLOCK.id)
            folder.rmdir()
