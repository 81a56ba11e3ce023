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
from cachesvc.store import Store
from cachesvc.way import SMALL_BYTES
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

        Opens a file and reads pages, but waits for no origin and no other node. epoch: the node's
        present one.
        """
        wanted = lone.split_read(request)
        if wanted is None:
            return None
        beginning, start, end = wanted
        page_bytes = self._page_bytes
        if end - start <= SMALL_BODY_BYTES and start // page_bytes == (end - 1) // page_bytes:
            return None  # small.py has looked
        key = beginning, start // self._block_bytes
        known = self._known.get(key)
        one = known or self._known.worked_out(key)
        if one is None or not start < end <= min(one.object_end, one.start + one.length_bytes):
            return None
        hit = self._whole_pages(one, start, end, epoch) or self._segment(one, start, end, epoch)
        if hit is not None and known is None:
            self._known.keep(key, one)
        return hit

    def _whole_pages(self, one: KnownBlock, start: int, end: int, epoch: int) -> ReadyHit | None:
        """Bytes `[start, end)` of the object, as they stand in an open file; None: they are not
        whole pages, or few, or not all present in a file that is open.
        """
        page_bytes, first, beyond = self._page_bytes, start - one.start, end - one.start
        opened = self._opened(one.id)
        if opened is None or first % page_bytes or end - start <= SMALL_BYTES:
            return None
        if beyond % page_bytes and beyond != one.length_bytes:
            return None
        pin = self._store.pin_open(one.id, opened.file)
        if pin is None:
            return None
        hit, part = None, Slice(one.block, first, beyond)
        try:
            if part.pages & ~pin.present == 0:
                sums = pin.checksums(first // page_bytes, -(-beyond // page_bytes))
                head = _head(one, start, end, sums, epoch)
                hit = ReadyHit([head, FilePart(pin, first, end - start)], [pin], [part])
        finally:
            if hit is None:
                pin.close()
        return hit

    def _segment(self, one: KnownBlock, start: int, end: int, epoch: int) -> ReadyHit | None:
        """Any bytes `[start, end)` of the object, as the common way has them; None: not all of them
        are here, or some are not right.
        """
        part = Slice(one.block, start - one.start, end - one.start)
        segment = self._stored(part)
        if segment is None:
            return None
        assert segment.pin is not None, "what is stored is sent from a pinned file"
        hit = None
        try:
            items = joined([_head(one, start, end, segment.checksums, epoch), *segment.parts])
            hit = ReadyHit(items, [segment.pin], [part])
        finally:
            if hit is None:
                segment.close()
        return hit


def _head(one: KnownBlock, start: int, end: int, sums: bytes, epoch: int) -> memoryview:
    """Prefix and header of the only frame."""
    shape = lone.answer_shape(one.beginning, end - start, len(sums), epoch)
    before, after = lone.answer_around(shape, start)
    return memoryview(b"".join((before, sums, after)))
