"""A bench in memory or on a directory; on either; on the one whose inside a test must reach."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cachesvc.disk.memory import MemoryDisk
from cachesvc.disk.nvme import NvmeDisk
from tests.unit.store.bench import Bench


@pytest.fixture(params=["memory", "nvme"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """One disk of either kind; at the end nothing is open any more."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    disk = MemoryDisk() if request.param == "memory" else NvmeDisk(tmp_path)
    bench = Bench(disk)
    yield bench
    bench.store.close()
    disk.close()
    assert getattr(disk, "open_count", 0) == 0
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def memory() -> Iterator[tuple[Bench, MemoryDisk]]:
    disk = MemoryDisk()
    bench = Bench(disk)
    yield bench, disk
    disk.fail = lambda _op: None
    bench.store.close()
    assert disk.open_count == 0


@pytest.fixture
def nvme(tmp_path: Path) -> Iterator[tuple[Bench, Path]]:
    """A bench on a directory, and where its block files stand."""
    before = len(os.listdir("/proc/self/fd"))
    with closing(NvmeDisk(tmp_path)) as disk:
        bench = Bench(disk)
        yield bench, tmp_path / "blocks"
        bench.store.close()
    assert len(os.listdir("/proc/self/fd")) == before
