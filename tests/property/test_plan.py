"""A plan fetches what is wanted and free, once, in GETs neither tiny nor larger than need be."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_

from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.core.blocks import BlockRef, pages_of, runs, slices
from cachesvc.core.plan import Extent, plan
from cachesvc.core.types import ByteRange, Geometry, ObjectName, ObjectVersion

PROFILE = settings(max_examples=300)
MIB = 1 << 20
PAGE = 1000


def version(size_bytes: int) -> ObjectVersion:
    return ObjectVersion(ObjectName("bucket", "key"), '"etag"', size_bytes)


@st.composite
def situations(draw: st.DrawFn) -> tuple[BlockRef, int, int]:
    """A block of any size, and wanted and taken pages, in runs as reads make them."""
    window = draw(st.integers(1, 8))
    windows = draw(st.integers(1, 16))
    most = draw(st.integers(window, 3 * window * windows))
    geometry = Geometry(window * windows * PAGE, PAGE, window * PAGE, most * PAGE)
    block = BlockRef(version(draw(st.integers(1, geometry.block_bytes))), 0, geometry)
    return block, draw(bitmaps(block)), draw(bitmaps(block))


def bitmaps(block: BlockRef) -> st.SearchStrategy[int]:
    page = st.integers(0, block.page_count)
    some_runs = st.lists(st.tuples(page, page), max_size=5)
    return some_runs.map(lambda pairs: sum_of(bits(min(pair), max(pair)) for pair in pairs))


def sum_of(bitmaps: Iterable[int]) -> int:
    return reduce(or_, bitmaps, 0)


def bits(first: int, beyond: int) -> int:
    return ((1 << (beyond - first)) - 1) << first


@PROFILE
@given(situations())
def test_every_wanted_free_page_is_in_exactly_one_extent_and_no_taken_page_in_any(
    situation: tuple[BlockRef, int, int],
) -> None:
    block, wanted, taken = situation
    covered = 0
    for extent in plan(block, wanted, taken):
        assert extent.pages & covered == 0
        assert extent.pages & taken == 0
        assert extent.pages & ~block.all_pages == 0
        covered |= extent.pages
    assert wanted & block.all_pages & ~taken & ~covered == 0


@PROFILE
@given(situations())
def test_an_extent_is_neither_too_long_nor_too_short(situation: tuple[BlockRef, int, int]) -> None:
    block, wanted, taken = situation
    geometry = block.geometry
    extents = plan(block, wanted, taken)
    planned = sum_of(extent.pages for extent in extents)
    for extent in extents:
        assert 0 < extent.length_bytes <= geometry.extent_max_bytes
        pages = extent.beyond_page - extent.first_page
        if pages * PAGE < geometry.extent_min_bytes:
            blocked = taken | (planned & ~extent.pages)
            assert extent.first_page == 0 or blocked >> (extent.first_page - 1) & 1
            assert extent.beyond_page == block.page_count or blocked >> extent.beyond_page & 1


@PROFILE
@given(situations())
def test_a_plan_is_in_order_and_fetches_nothing_far_from_what_is_wanted(
    situation: tuple[BlockRef, int, int],
) -> None:
    block, wanted, taken = situation
    extents = plan(block, wanted, taken)
    assert extents == sorted(extents, key=lambda extent: extent.first_page)
    for first, beyond in runs(sum_of(extent.pages for extent in extents)):
        assert bits(first, beyond) & wanted & ~taken


@PROFILE
@given(situations())
def test_a_short_wanted_run_grows_to_at_most_one_window(
    situation: tuple[BlockRef, int, int],
) -> None:
    block, wanted, taken = situation
    window_pages = block.geometry.extent_min_bytes // PAGE
    for first, beyond in runs(wanted & block.all_pages & ~taken):
        extents = plan(block, bits(first, beyond), taken)
        pages = sum(extent.beyond_page - extent.first_page for extent in extents)
        assert pages <= max(window_pages, beyond - first)
        if beyond - first <= window_pages:
            assert len(extents) == 1


@PROFILE
@given(situations())
def test_after_the_extents_are_taken_nothing_is_left_to_fetch(
    situation: tuple[BlockRef, int, int],
) -> None:
    block, wanted, taken = situation
    assert plan(block, wanted, taken) == plan(block, wanted, taken)
    flying = sum_of(extent.pages for extent in plan(block, wanted, taken))
    assert plan(block, wanted, taken | flying) == []


def extents_of(size_bytes: int, start: int, end: int) -> list[Extent]:
    parts = slices(version(size_bytes), ByteRange(start, end), Geometry())
    return [extent for part in parts for extent in plan(part.block, part.pages, 0)]


@PROFILE
@given(st.integers(0, (1 << 30) - 100_000))
def test_a_cold_read_of_100_kb_within_a_block_is_one_get_of_at_most_1_mib(start: int) -> None:
    if start // (8 * MIB) != (start + 99_999) // (8 * MIB):
        start = start // (8 * MIB) * (8 * MIB)
    [extent] = extents_of(1 << 30, start, start + 100_000)
    assert extent.length_bytes == MIB
    assert extent.object_range.start <= start
    assert start + 100_000 <= extent.object_range.end


def test_a_cold_tail_of_100_kb_is_the_last_mib() -> None:
    [extent] = extents_of(1 << 30, (1 << 30) - 100_000, 1 << 30)
    assert extent.object_range == ByteRange((1 << 30) - MIB, 1 << 30)


def test_a_read_that_straddles_two_windows_is_still_one_extent_of_one_window() -> None:
    [extent] = extents_of(1 << 30, MIB - 50_000, MIB + 50_000)
    assert extent.object_range == ByteRange(MIB - 65536, 2 * MIB - 65536)


def test_a_whole_block_is_one_extent() -> None:
    [extent] = extents_of(1 << 30, 8 * MIB, 16 * MIB)
    assert extent.object_range == ByteRange(8 * MIB, 16 * MIB)


def test_the_last_extent_ends_with_the_object() -> None:
    [extent] = extents_of(8 * MIB + 3, 8 * MIB, 8 * MIB + 3)
    assert (extent.length_bytes, extent.pages) == (3, 1)
    [extent] = extents_of(3 * MIB // 2 + 1, 3 * MIB // 2, 3 * MIB // 2 + 1)
    assert extent.object_range.end == 3 * MIB // 2 + 1
    assert extent.length_bytes <= MIB


def test_small_reads_one_after_another_make_aligned_extents() -> None:
    geometry = Geometry()
    block = BlockRef(version(8 * MIB), 0, geometry)
    taken, seen = 0, []
    for start in range(0, 8 * MIB, 100_000):
        wanted = pages_of(start, min(start + 100_000, 8 * MIB), geometry.page_bytes)
        for extent in plan(block, wanted, taken):
            taken |= extent.pages
            seen.append((extent.start, extent.length_bytes))
    assert seen == [(mib * MIB, MIB) for mib in range(8)]
