"""Room in the store: never more than the capacity, and who holds a pin keeps the bytes."""

from __future__ import annotations

from cachesvc.core.format import TRAILER_BYTES
from tests.support import FILE_BYTES
from tests.unit.store.bench import BLOCK, BLOCKS, DATA, Bench, bytes_of


def test_what_is_stored_never_exceeds_the_capacity(bench: Bench) -> None:
    capacity_bytes = 5 * FILE_BYTES + 2 * TRAILER_BYTES
    bench.open(capacity_bytes)
    for block in BLOCKS * 2:
        assert bench.put(block)
        assert bench.store.stored_bytes <= capacity_bytes
    assert 4 <= bench.store.stored_count <= 6
    assert len(list(bench.disks[0].scan())) == bench.store.stored_count
    assert bench.count("evicted_bytes_total", reason="capacity") > 0


def test_a_capacity_without_room_for_a_block_stores_nothing(bench: Bench) -> None:
    bench.open(TRAILER_BYTES)
    assert not bench.put(BLOCK)
    assert list(bench.disks[0].scan()) == []
    assert bench.count("unstored_bytes_total") == 1024


def test_a_block_that_leaves_while_pinned_stays_readable(bench: Bench) -> None:
    bench.put(BLOCK)
    pin = bench.store.pin(BLOCK)
    assert pin is not None
    bench.store.drop(pin, "page")
    for block in BLOCKS[1:]:
        bench.put(block)
    assert BLOCK.id not in set(bench.disks[0].scan())
    assert bytes_of(pin, BLOCK) == DATA[:1024]
    assert not bench.has(BLOCK)
    pin.close()


def test_space_of_unlinked_files_that_are_still_open_counts(bench: Bench) -> None:
    bench.open(2 * FILE_BYTES + 2 * TRAILER_BYTES)
    pins = []
    for block in BLOCKS:
        if bench.put(block) and (pin := bench.store.pin(block)):
            pins.append(pin)
            bench.store.drop(pin, "page")
    assert len(pins) == 2  # a third would have no room beside their bytes
    assert bench.store.devices[0].used_bytes == 2 * FILE_BYTES
    for pin in pins:
        pin.close()
    assert bench.put(BLOCKS[10])
    assert bench.store.devices[0].doomed_bytes == 0
    assert bench.store.devices[0].reserved_bytes == 0


def test_a_pinned_block_is_not_evicted_in_vain(bench: Bench) -> None:
    bench.open(4 * FILE_BYTES)
    for block in BLOCKS[:3]:
        assert bench.put(block)
    pins = [bench.store.pin(block) for block in BLOCKS[:2]]  # the oldest
    assert bench.put(BLOCKS[3])
    assert bench.put(BLOCKS[4])
    assert [bench.has(block) for block in BLOCKS[:5]] == [True, True, False, False, True]
    for pin in pins:
        assert pin is not None
        pin.close()


def test_a_store_full_of_pinned_blocks_refuses_and_keeps_them(bench: Bench) -> None:
    bench.open(3 * FILE_BYTES)
    stored = [block for block in BLOCKS[:2] if bench.put(block)]
    pins = [bench.store.pin(block) for block in stored]
    assert not bench.put(BLOCKS[2])
    assert all(bench.has(block) for block in stored)
    for pin in pins:
        assert pin is not None
        pin.close()
    assert bench.put(BLOCKS[2])


def test_pages_written_after_a_block_was_dropped_begin_it_anew(bench: Bench) -> None:
    bench.put(BLOCK, 0, 1)
    pin = bench.store.pin(BLOCK)
    assert pin is not None
    bench.store.drop(pin, "page")
    assert bench.put(BLOCK, 1, 2)
    fresh = bench.store.pin(BLOCK)
    assert fresh is not None
    assert (pin.present, fresh.present) == (0b1, 0b10)
    fresh.close()
    pin.close()
