"""Which origin GETs a miss needs: from missing pages to extents.

Rules: every wanted page that is neither present nor in flight is in exactly one extent; an extent holds only such free
pages, so that no byte is fetched twice; it grows to its aligned window of extent_min_bytes where the neighbours are
free, and never beyond extent_max_bytes or its block. Deterministic: two readers of the same state plan the same GETs.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachesvc.core.blocks import BlockRef, runs
from cachesvc.core.types import ByteRange


@dataclass(frozen=True, slots=True)
class Extent:
    """Adjacent pages `[first_page, beyond_page)` of one block: one origin GET."""

    block: BlockRef
    first_page: int
    beyond_page: int

    @property
    def pages(self) -> int:
        return ((1 << (self.beyond_page - self.first_page)) - 1) << self.first_page

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


def plan(block: BlockRef, wanted: int, taken: int) -> list[Extent]:
    """The extents that bring all `wanted` pages that are not `taken` (present or in flight), in order."""
    geometry = block.geometry
    window_pages = geometry.extent_min_bytes // geometry.page_bytes
    most_pages = geometry.extent_max_bytes // geometry.page_bytes
    free = block.all_pages & ~taken
    grown = 0
    for first, beyond in runs(wanted & free):
        window_first = first // window_pages * window_pages
        window_beyond = -(-beyond // window_pages) * window_pages
        window = ((1 << (window_beyond - window_first)) - 1) << window_first
        for run_first, run_beyond in runs(window & free):
            run = ((1 << (run_beyond - run_first)) - 1) << run_first
            if run & wanted:
                grown |= run
    extents = []
    for first, beyond in runs(grown):
        for start in range(first, beyond, most_pages):
            extents.append(Extent(block, start, min(start + most_pages, beyond)))
    return extents
