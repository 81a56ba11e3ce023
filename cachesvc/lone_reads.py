"""Hits of one range within one block, of a version that is named, made without messages.

Story: what is no small read (small.py) and not asked for again (repeats.py) would be parsed,
unpacked, cut, answered by segments and packed again. Where it is one range of a block that is
stored, it is split by hand (wire/lone.py), the block is found by how the request begins (known.py),
and the header made of what is ready. Whole pages of an open file leave from it as they stand; for
any others the segment is made as for any hit. What is anything else, or not all here, is None, and
the way of all other requests.

Rules: a request that names its version has one right answer for ever, so no age is asked for. The
answer is byte for byte what the common way sends (tests/unit/reader/test_lone_reads.py).
"""

from __future__ import annotations

from collections.abc import Callable

from cachesvc.answer import FilePart, Segment
from cachesvc.core.blocks import Slice
from cachesvc.core.request import SMALL_BODY_BYTES
from cachesvc.core.types import Geometry
from cachesvc.known import KnownBlock, KnownBlocks
from cachesvc.lane_answer import ReadyHit, joined
from cachesvc.pins import OpenBlock
from cachesvc.store import Store
from cachesvc.way import CHECKED_BYTES
from cachesvc.wire import lone


class LoneReads:
    """Those of one node's lane. Any thread may call.

    stored: the segment of a slice, if all of it is present, and what is checked here is right.
    """

    def __init__(
        self,
        store: Store,
        known: KnownBlocks,
        stored: Callable[[Slice], Segment | None],
        geometry: Geometry,
    ) -> None:
        self._store = store
        self._opened = store.open_blocks.get
        self._known = known
        self._stored = stored
        self._block_bytes, self._page_bytes = geometry.block_bytes, geometry.page_bytes

    def answer(self, request: bytes, epoch: int) -> ReadyHit | None:
        """The answer to the whole frame of a request, or None: it must go the common way.

        Reads pages that are sent in part, but waits for no origin and no other node. epoch: the
        node's present one.
        """
        wanted = lone.split_read(request)
        if wanted is None:
            return None
        beginning, start, end = wanted
        block_bytes, page_bytes = self._block_bytes, self._page_bytes
        index = start // block_bytes
        if start >= end or (end - 1) // block_bytes != index:
            return None
        if end - start <= SMALL_BODY_BYTES and start // page_bytes == (end - 1) // page_bytes:
            return None  # small.py has looked
        key = beginning, index
        known = self._known.get(key)
        one = known or self._known.worked_out(key)
        if one is None or end > one.object_end:
            return None
        opened, part = self._opened(one.id), Slice(one.block, start - one.start, end - one.start)
        if opened is None or part.pages & ~opened.trailer.present:
            return None  # so that the eviction policy is told once, by whoever sends something
        if part.whole and part.length_bytes > CHECKED_BYTES:
            hit = self._whole_pages(one, part, opened, epoch)
        else:
            hit = self._segment(one, part, epoch)
        if known is not None:
            known.used = True
        elif hit is not None:
            self._known.keep(key, one)
        return hit

    def _whole_pages(
        self, one: KnownBlock, part: Slice, opened: OpenBlock, epoch: int
    ) -> ReadyHit | None:
        """Pages as they stand in an open file. None: it is no longer the one that is open."""
        pin, hit = self._store.pin_open(one.id, opened.file), None
        if pin is None:
            return None
        try:
            page_bytes = self._page_bytes
            sums = pin.checksums(part.start // page_bytes, -(-part.end // page_bytes))
            body = FilePart(pin, part.start, part.length_bytes)
            hit = ReadyHit([_head(one, part, sums, epoch), body], [pin], [part])
        finally:
            if hit is None:
                pin.close()
        return hit

    def _segment(self, one: KnownBlock, part: Slice, epoch: int) -> ReadyHit | None:
        """Any bytes, as the common way has them. None: they are no longer here, or not right."""
        segment, hit = self._stored(part), None
        if segment is None:
            return None
        try:
            assert segment.pin is not None, "what is stored is sent from a pinned file"
            items = joined([_head(one, part, segment.checksums, epoch), *segment.parts])
            hit = ReadyHit(items, [segment.pin], [part])
        finally:
            if hit is None:
                segment.close()
        return hit


def _head(one: KnownBlock, part: Slice, sums: bytes, epoch: int) -> memoryview:
    """Prefix and header of the only frame."""
    shape = lone.answer_shape(one.beginning, part.length_bytes, len(sums), epoch)
    before, after = lone.answer_around(shape, part.object_start)
    return memoryview(b"".join((before, sums, after)))
