"""Which origin GETs a miss needs: from missing pages to extents.

Rules: every wanted page that is neither present nor in flight is in exactly one extent; an extent
holds only such free pages, so that no byte is fetched twice; it stays within its block and within
extent_max_bytes. Deterministic: two readers of the same state plan the same GETs.

Story: each run of wanted pages lies in a gap, a run of free ones. A run shorter than
extent_min_bytes grows to exactly that, or to its whole gap if the gap is smaller: to the aligned
window where the run lies in one that is free, else to a window that begins with the run (readers
read forward) and slides back as far as the end of the gap demands. A longer run is fetched as it
is, cut at extent_max_bytes. What an extent has is no part of the gap any more. So a cold read of
100 KB within a block is one GET of at most extent_min_bytes, wherever it lies. Of an object that
nobody knows yet, `first_extent` is what the plan begins with, were it as long as its block 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cachesvc.core.blocks import BlockRef, pages_of, runs
from cachesvc.core.types import ByteRange, Geometry, ObjectName, ObjectVersion


@dataclass(frozen=True, slots=True)
class Extent:
    """Adjacent pages `[first_page, beyond_page)` of one block: one origin GET."""

    block: BlockRef
    first_page: int
    beyond_page: int

    @property
    def pages(self) -> int:
        return _bits(self.first_page, self.beyond_page)

    @property
    def start(self) -> int:
        """Where the extent begins in its block, in bytes."""
        return self.first_page * self.block.geometry.page_bytes

    @property
    def length_bytes(self) -> int:
        return (
            min(self.beyond_page * self.block.geometry.page_bytes, self.block.length_bytes)
            - self.start
        )

    @property
    def object_range(self) -> ByteRange:
        """The extent as bytes of its object: what the GET asks for."""
        start = self.block.start + self.start
        return ByteRange(start, start + self.length_bytes)

    def within(self, version: ObjectVersion) -> Extent:
        """The same pages of a version of the object, as far as it has them: at least the first."""
        block = BlockRef(version, self.block.index, self.block.geometry)
        return Extent(block, self.first_page, min(self.beyond_page, block.page_count))


def plan(block: BlockRef, wanted: int, taken: int) -> list[Extent]:
    """The extents, in order, that bring all `wanted` pages but the `taken` (present, in flight)."""
    geometry = block.geometry
    window_pages = geometry.extent_min_bytes // geometry.page_bytes
    most_pages = geometry.extent_max_bytes // geometry.page_bytes
    extents: list[Extent] = []
    for gap_first, gap_beyond in runs(block.all_pages & ~taken):
        free_first = gap_first
        for first, beyond in runs(wanted & _bits(gap_first, gap_beyond)):
            while (start := max(first, free_first)) < beyond:
                run = start, min(beyond, start + most_pages)
                extent = Extent(block, *_grow(run, (free_first, gap_beyond), window_pages))
                extents.append(extent)
                free_first = extent.beyond_page
    return extents


def first_extent(
    name: ObjectName, ranges: Iterable[tuple[int, int | None]], geometry: Geometry
) -> Extent | None:
    """The first extent of block 0 for a read of an object of any version and size: of a stand-in
    version as long as the block. None: the ranges want nothing of block 0, or are none.
    """
    block = BlockRef(ObjectVersion(name, "", geometry.block_bytes), 0, geometry)
    wanted = 0
    for start, end in ranges:
        if start < 0 or (end is not None and end < start):
            return None
        beyond = geometry.block_bytes if end is None else min(end, geometry.block_bytes)
        wanted |= pages_of(start, beyond, geometry.page_bytes)
    return next(iter(plan(block, wanted, 0)), None)


def _grow(run: tuple[int, int], gap: tuple[int, int], window_pages: int) -> tuple[int, int]:
    """A run of wanted pages as the window that is fetched for it, within its gap of free pages."""
    first, beyond = run
    gap_first, gap_beyond = gap
    if beyond - first >= window_pages:
        return run
    start = first // window_pages * window_pages
    if start < gap_first or not beyond <= start + window_pages <= gap_beyond:
        start = max(gap_first, min(first, gap_beyond - window_pages))
    return start, min(start + window_pages, gap_beyond)


def _bits(first: int, beyond: int) -> int:
    return ((1 << (beyond - first)) - 1) << first
