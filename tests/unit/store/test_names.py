"""The store knows without a version whether it has a block 0 of an object: never wrongly none."""

from __future__ import annotations

import errno
from contextlib import closing

from cachesvc.core.types import ObjectName
from cachesvc.disk.memory import MemoryDisk
from tests.support import FILE_BYTES, NAME, blocks_of, store_pages, version_of
from tests.unit.store.bench import BLOCK, BLOCKS, DATA, Bench, failing


def test_a_name_is_known_while_any_version_has_its_block_0(bench: Bench) -> None:
    store = bench.store
    assert store.none_of(NAME)
    bench.put(BLOCKS[1])
    assert store.none_of(NAME)
    newer = blocks_of(version_of(DATA, etag='"v2"'))[0]
    for block in (BLOCK, newer):
        assert store_pages(store, block, DATA[: block.length_bytes], 0, 2)
    assert store_pages(store, newer, DATA[: newer.length_bytes], 2, 4)
    assert not store.none_of(NAME)
    assert store.none_of(ObjectName("bucket", "key2"))
    for block in (BLOCK, newer):
        assert not store.none_of(NAME)
        pin = store.pin(block)
        assert pin is not None
        with closing(pin):
            store.drop(pin, "page")
    assert store.none_of(NAME)


def test_a_name_goes_with_its_evicted_block(bench: Bench) -> None:
    store = bench.open(capacity_bytes=2 * len(bench.disks) * FILE_BYTES)
    for block in BLOCKS:
        bench.put(block)
    assert store.none_of(NAME) == (not bench.has(BLOCK))


def test_a_recovering_store_is_sure_of_nothing(bench: Bench) -> None:
    bench.put(BLOCK)
    bench.store.close()
    other = ObjectName("bucket", "other")
    store = bench.open(recover=False)
    for _ in store.recover():
        assert not store.none_of(other)
        assert not store.none_of(NAME)
    assert store.none_of(other)
    assert not store.none_of(NAME)


def test_a_device_that_fails_takes_its_names_along() -> None:
    disk = MemoryDisk()
    bench = Bench(disk)
    bench.put(BLOCK)
    assert not bench.store.none_of(NAME)
    disk.fail = failing(errno.EIO, "create")
    bench.put(BLOCKS[1])
    assert bench.store.none_of(NAME)
