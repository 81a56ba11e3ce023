"""The lock that every hit takes is never held while a file is opened, closed, written or removed.

Story: evicting closed the files of its victims under the lock. Closing the last descriptor of a
large file is when a file system gives its space back, and all lane threads waited for that. The
member table was written to disk on the lane thread that had heard of a new member.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from cachesvc.core.ring import Member
from cachesvc.core.types import Geometry
from cachesvc.disk.base import Space
from cachesvc.disk.memory import MemoryDisk, MemoryFile
from cachesvc.membership.cluster import Cluster
from cachesvc.membership.static import MemberList, StaticMembership
from cachesvc.store import Store
from tests.support import FILE_BYTES
from tests.unit.store.bench import BLOCK, BLOCKS, Bench, failing


class WatchedDisk(MemoryDisk):
    """Every operation on it or its files proves first that nobody holds the lock."""

    store: Store | None = None

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.trouble: Callable[[str], None] = lambda _op: None
        self.fail = self.watch

    def watch(self, op: str) -> None:
        self.seen.add(op)
        if self.store is not None:
            assert not self.store._stock.lock.locked(), f"{op} under the lock"
        self.trouble(op)

    def space(self) -> Space:
        self.watch("space")
        return super().space()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, WatchedDisk]:
    disk = WatchedDisk()
    real = MemoryFile.close

    def close(file: MemoryFile) -> None:
        disk.watch("close")
        real(file)

    monkeypatch.setattr(MemoryFile, "close", close)
    bench = Bench(disk)
    disk.store = bench.open(5 * FILE_BYTES, max_idle=3)
    return bench, disk


def test_files_that_leave_are_closed_and_removed_outside_the_lock(
    watched: tuple[Bench, WatchedDisk],
) -> None:
    bench, disk = watched
    for block in BLOCKS:
        assert bench.put(block)
    last = bench.store.pin(BLOCKS[-1])
    assert last is not None
    bench.store.drop(last, "page")
    last.close()
    bench.put(BLOCK)
    disk.trouble = failing(errno.EMFILE, "create")
    bench.put(BLOCKS[1])
    disk.trouble = lambda _op: None
    disk.files[BLOCK.id] = bytearray(5)
    bench.store.open_blocks.shed()
    bench.store.open_blocks.shed()
    assert bench.store.pin(BLOCK) is None
    bench.put(BLOCKS[2])
    bench.store.close()
    assert disk.open_count == 0
    disk.store = bench.open(5 * FILE_BYTES)
    bench.put(BLOCK)
    disk.trouble = failing(errno.EIO, "create")
    bench.put(BLOCKS[3])
    assert bench.store.devices[0].failure
    assert disk.open_count == 0
    assert disk.seen >= {"open", "create", "pread", "pwrite", "unlink", "close", "scan", "space"}


def test_a_new_member_is_learned_while_the_table_cannot_be_written(tmp_path: Path) -> None:
    """A pipe stands where the table is written, so that writing it takes until somebody reads."""
    me, other = Member("me", "127.0.0.1:1"), Member("other", "127.0.0.1:2")
    memory = tmp_path / "members.json"
    pipe = memory.with_suffix(".new")
    cluster = Cluster(me, Geometry(), memory=memory)
    membership = StaticMembership(cluster, MemberList(f"{me.lane_address},{other.lane_address}"))

    async def scene() -> None:
        await membership.start()
        os.mkfifo(pipe)
        lane = Thread(target=lambda: cluster.learn(other), daemon=True)
        lane.start()
        await asyncio.to_thread(lane.join, 2)
        assert not lane.is_alive(), "a lane thread waits for the member table to be written"
        written = await asyncio.to_thread(pipe.read_text)
        await membership.stop()
        assert [row[0] for row in json.loads(written)] == ["me", "other"]

    asyncio.run(scene())
    assert [member.node_id for member in cluster.table.members] == ["me", "other"]
