"""What a store shows of itself: descriptors, long names, how much it holds."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

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
