"""A thread that was still looking a block up when the store was closed left its file open."""

from __future__ import annotations

from cachesvc.disk.memory import MemoryDisk
from tests.support import blocks_of, open_rig, run
from tests.unit.reader.sample import fill


def test_a_store_that_is_closed_keeps_no_file_open() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            rig.store.close()
            pin = rig.store.hold(blocks_of(version)[0])
            assert pin is not None
            pin.close()
            assert [disk.open_count for disk in rig.disks if isinstance(disk, MemoryDisk)] == [0]

    run(body)
