"""The store in memory and on a real directory: what is stored is right, or it is not there."""

from __future__ import annotations

from contextlib import closing

import pytest

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import checksum
from cachesvc.core.types import ObjectName
from cachesvc.disk.memory import MemoryDisk
from tests.support import FILE_BYTES, blocks_of, pattern, store_pages, version_of
from tests.unit.store.bench import BLOCK, BLOCKS, DATA, LAST, Bench, bytes_of


def test_a_block_that_was_never_written_is_not_there(bench: Bench) -> None:
    assert bench.store.pin(BLOCK) is None
    assert bench.store.stored_count == 0


@pytest.mark.parametrize("block", [BLOCK, LAST], ids=["full", "last and short"])
def test_what_was_written_is_read(bench: Bench, block: BlockRef) -> None:
    assert bench.put(block)
    assert bench.has(block)
    assert bench.store.stored_bytes == FILE_BYTES


def test_only_the_pages_that_were_written_are_present(bench: Bench) -> None:
    assert bench.put(BLOCK, 2, 4)
    assert bench.put(BLOCK, 7, 8)
    pin = bench.store.pin(BLOCK)
    assert pin is not None
    with closing(pin):
        assert pin.present == 0b10001100
        assert bytes_of(pin, BLOCK) == DATA[256:512] + DATA[896:1024]
        assert pin.checksums(2, 4) == checksum(DATA[256:384]) + checksum(DATA[384:512])
    assert bench.store.stored_count == 1


def test_a_present_page_never_changes(bench: Bench) -> None:
    assert bench.put(BLOCK, 2, 5)
    other = pattern(1024, seed=2)
    assert store_pages(bench.store, BLOCK, other, 0, 4)  # says stored: its pages are present
    assert store_pages(bench.store, BLOCK, other, 0, 8)
    pin = bench.store.pin(BLOCK)
    assert pin is not None
    with closing(pin):
        assert pin.present == 0xFF
        assert bytes_of(pin, BLOCK) == other[:256] + DATA[256:640] + other[640:]


def test_pages_that_come_while_a_pin_is_held_are_seen_by_it(bench: Bench) -> None:
    bench.put(BLOCK, 0, 1)
    pin = bench.store.pin(BLOCK)
    assert pin is not None
    with closing(pin):
        bench.put(BLOCK, 1, 2)
        assert pin.present == 0b11
        assert pin.page(1) == DATA[128:256]


def test_an_unpinned_pin_may_be_closed_again(bench: Bench) -> None:
    bench.put(BLOCK)
    one, two = bench.store.pin(BLOCK), bench.store.pin(BLOCK)
    assert one is not None
    assert two is not None
    one.close()
    one.close()
    assert two.page(0) == DATA[:128]
    two.close()
    assert bench.has(BLOCK)


def test_no_more_idle_files_stay_open_than_allowed(memory: tuple[Bench, MemoryDisk]) -> None:
    bench, disk = memory
    bench.open(max_idle=2)
    for block in BLOCKS:
        bench.put(block)
    assert disk.open_count == 2
    assert all(bench.has(block) for block in BLOCKS)
    assert disk.open_count == 2


def test_other_versions_and_objects_never_meet(bench: Bench) -> None:
    others = [
        version_of(DATA, etag='"v2"'),
        version_of(DATA, ObjectName("bucket", "key2")),
        version_of(DATA, ObjectName("bucket2", "key")),
        version_of(DATA[:-1]),
    ]
    bench.put(BLOCK)
    assert not any(bench.has(blocks_of(version)[0]) for version in others)
