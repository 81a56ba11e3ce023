"""What a store shows of itself: descriptors, long names, how much it holds."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from cachesvc.core.types import ObjectName
from cachesvc.disk.nvme import NvmeFile
from tests.support import FILE_BYTES, NAME, blocks_of, version_of
from tests.unit.store.bench import BLOCK, DATA, ROOMY_BYTES, Bench


def test_a_descriptor_reads_from_the_block_file(nvme: tuple[Bench, Path]) -> None:
    bench, _ = nvme
    bench.put(BLOCK)
    pin = bench.store.pin(BLOCK)
    assert pin is not None
    with closing(pin):
        assert os.pread(pin.fileno(), 1024, 0) == DATA[:1024]
        opened = pin.opened
        assert opened is not None
        assert isinstance(opened.file, NvmeFile)


def test_a_name_as_long_as_allowed_is_stored(bench: Bench) -> None:
    name = ObjectName("b" * 255, "é" * 512)
    block = blocks_of(version_of(DATA, name, '"' + "e" * 254 + '"'))[0]
    assert bench.put(block)
    bench.store.close()
    bench.open()
    assert bench.has(block)


def test_a_store_says_what_it_holds(bench: Bench) -> None:
    bench.put(BLOCK)
    assert bench.count("stored_bytes") == FILE_BYTES
    assert bench.count("stored_blocks") == 1
    assert bench.count("capacity_bytes") == ROOMY_BYTES
    assert NAME.key in str(BLOCK)


def test_a_disk_that_loses_bytes_when_a_file_is_closed_costs_no_descriptor(
    nvme: tuple[Bench, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network's file systems do, NFS for one: what was lost fails its checksum later."""
    bench, _ = nvme
    close, closed = os.close, []

    def losing(fd: int) -> None:
        close(fd)
        closed.append(fd)
        raise OSError(errno.EIO, "lost")

    blocks = blocks_of(version_of(DATA))
    for block in blocks:
        assert bench.put(block)
    with monkeypatch.context() as patch:
        patch.setattr("cachesvc.disk.nvme.os.close", losing)
        bench.store.close()
    assert len(closed) == len(blocks)
    bench.open()
    assert all(bench.has(block) for block in blocks)


def test_a_file_that_is_closed_twice_is_a_defect(tmp_path: Path) -> None:
    file = NvmeFile(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.close()
