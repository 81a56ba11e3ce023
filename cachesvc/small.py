"""Small hot reads: answers within one page, made in a few steps and kept for who asks again.

Story: a lane gives every whole request to `answer`. The bytes of the request are the key: what is
kept from before is sent again as it stands, header and body. Else the request is split by hand
(wire/lone.py), the parts of a page that it touches are read and checked (core/parts.py), and the
answer is made, and kept if it had been asked for twice (doorkeeper.py). A page whose parts'
checksums are not known, because nobody has filled or read it since the node began, or too many
others since, is checked as a whole. What is anything but a stored range, within one page, of at
most SMALL_BODY_BYTES of a version that the request names, is None, and the way of other requests.

Rules
- What is kept was checked when it was made, and rests on the block file that was open then. It is
  good only while the store still has that very file open for the block: eviction, a failed check, a
  lost device and a file closed for want of descriptors all end it.
- Parts are read without a pin: should the file be closed meanwhile, the read fails, or its bytes do
  not match, and the page is pinned and checked as a whole.
- A request that names its version has one right answer for ever, so no age is asked for here. The
  epoch that an answer tells is the node's present one, or the answer is made anew.
- An answer is counted, and eviction policy and readahead are told of it, like of any hit, but
  many at a time, mostly behind its sending (`settle`): alone it costs several times as much.
- What is asked for once or twice is not kept: filling new memory costs more than it saves. Who asks
  again is found when answers are counted, and gets a place; whoever asks then fills it. At most
  MAX_KEPT_BYTES are kept, places included; what was not asked for again goes first (CLOCK).
- Whoever asks with `verify` was sent wrong bytes: what is kept of those blocks, and the checksums
  of their parts, are forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

import structlog
from xxhash import xxh3_64_intdigest

from cachesvc.core import parts
from cachesvc.core.blocks import BlockRef, Slice
from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.request import SMALL_BODY_BYTES
from cachesvc.core.types import Geometry, ObjectVersion
from cachesvc.disk.base import BlockFile
from cachesvc.doorkeeper import Doorkeeper
from cachesvc.kept import Kept
from cachesvc.known import Key, KnownBlock, KnownBlocks
from cachesvc.pins import Pin
from cachesvc.store import Store
from cachesvc.wire import lone

MAX_KEPT_BYTES = 16 << 20  # of requests, answers and what it takes to keep them
ASKED_COUNT = 1 << 15  # places for requests by which it is told who asks again (Doorkeeper)
MAX_UNTOLD = 32  # answers that were sent and are not counted yet
_UNMADE = -1  # no epoch
_ENTRY_BYTES = 1024  # of memory that an entry takes beside its request and answer

log = structlog.get_logger(__name__)
Hit = tuple[BlockRef, int, int, bytes]  # a block, from which of its bytes to which, the request
Hits = Callable[[Sequence[Hit]], None]
# A block, checked bytes of it, their checksum, and the file that they are of
_Found = tuple[KnownBlock, bytes, int, BlockFile]


@dataclass(slots=True)
class _Answer:
    """The whole frame of an answer, what of a block that is, and the file that it rests on. epoch:
    that it tells, or _UNMADE: it was asked for twice, and is kept once it is asked for again. used:
    asked for again since it was last looked at for eviction.
    """

    frame: bytes
    hit: Hit
    file: BlockFile | None
    epoch: int
    size_bytes: int
    used: bool = False


class SmallReads:
    """The small reads of one node. Any thread may call.

    checked_page: a page of a pinned block, None if it fails its check, or, where one is not to
    wait, if it is not in memory. hits: told of every answer: the block, from which of its bytes to
    which, and the request, or nothing where it was another one.
    """

    def __init__(
        self,
        store: Store,
        geometry: Geometry,
        checked_page: Callable[[Pin, int, bool], bytes | None],
        hits: Hits,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self._store = store
        self._block_bytes, self._page_bytes = geometry.block_bytes, geometry.page_bytes
        self._part_bytes = parts.part_bytes_of(geometry.page_bytes)
        self._opened = store.open_blocks.get
        self._parts_fit = geometry.page_bytes % parts.PER_PAGE == 0
        self._sums_of, self._sums_get = store.part_sums.of, store.part_sums.get
        self._checked_page = checked_page
        self._hits = hits
        self._kept: Kept[bytes, _Answer] = Kept(max_kept_bytes)
        self._kept_get, self._asked_before = self._kept.get, Doorkeeper(ASKED_COUNT).knows
        self.known = KnownBlocks(geometry)
        self._known_get = self.known.get
        self._forgotten_count = 0
        self._untold: deque[Hit] = deque()
        self._telling = Lock()

    @property
    def kept_bytes(self) -> int:
        return self._kept.size_bytes

    @property
    def behind(self) -> bool:
        """Whether something that was sent is untold."""
        return bool(self._untold)

    def answer(self, request: bytes, epoch: int) -> bytes | None:
        """The whole frame that answers the whole frame of a request, or None: it must go the common
        way. It counts as sent; once it was, `sent` is to be called.

        Opens a file and reads a page, but waits for no origin and no other node. epoch: the node's
        present one.
        """
        kept = self._kept_get(request)
        if kept is not None and kept.epoch == epoch:
            opened = self._opened(kept.hit[0].id)
            if opened is not None and opened.file is kept.file:
                kept.used = True
                self._untold.append(kept.hit)
                return kept.frame
        forgotten = self._forgotten_count
        wanted = lone.split_read(request)
        if wanted is None:
            return None
        beginning, start, end = wanted
        if end - start > SMALL_BODY_BYTES:
            return None
        found = self._found((beginning, start // self._block_bytes), start, end, True)
        if found is None:
            return None
        known, body, digest, file = found
        length_bytes, of_epoch, shape = known.shaped
        if length_bytes != len(body) or of_epoch != epoch or shape is None:
            shape = lone.answer_shape(known.beginning, len(body), CHECKSUM_BYTES, epoch)
            known.shaped = len(body), epoch, shape
        frame = lone.answer(shape, start, digest, body)
        start -= known.start
        hit = known.block, start, start + len(body), request
        self._untold.append(hit)
        if kept is not None:
            size_bytes = len(request) + len(frame) + _ENTRY_BYTES
            kept = _Answer(frame, hit, file, epoch, size_bytes)
            self._kept.keep(request, kept)
            if forgotten != self._forgotten_count:  # meanwhile, and perhaps this block
                self._kept.drop(request, kept)
        return frame

    def sent(self) -> None:
        """An answer has left, and nobody waits for what is told with others to whoever counts."""
        if len(self._untold) >= MAX_UNTOLD:
            self.settle()

    def settle(self) -> None:
        """Tell of all that was sent: there is time, or somebody looks at what is counted."""
        with self._telling:  # who has waited for it finds told what was sent before
            while self._untold:
                told = [self._untold.popleft() for _ in range(len(self._untold))]
                try:
                    self._tell(told)
                except Exception:
                    log.exception("a small hit could not be counted")
                    for one in told:  # so that the others are
                        with suppress(Exception):
                            self._tell([one])
                self._note(told)

    def _tell(self, hits: list[Hit]) -> None:
        self._store.touch([block.id for block, _, _, _ in hits])
        self._hits(hits)

    def _note(self, hits: list[Hit]) -> None:
        """What was asked for before is kept when it is asked for again."""
        for hit in hits:
            request = hit[3]
            if self._kept_get(request) is None and self._asked_before(request):
                size_bytes = len(request) + _ENTRY_BYTES
                self._kept.keep(request, _Answer(b"", hit, None, _UNMADE, size_bytes))

    def body(self, version: ObjectVersion, start: int, end: int) -> bytes | None:
        """Bytes `[start, end)` of a version that has them, checked, for who makes the answer
        himself; None: they lie in more than one page, or a disk would have to be waited for.
        """
        found = self._found((version, start // self._block_bytes), start, end, False)
        if found is None:
            return None
        known, body, _, _ = found
        first = start - known.start
        self._tell([(known.block, first, first + len(body), b"")])
        return body

    def forget(self, wrong: list[Slice]) -> None:
        """Somebody was sent wrong bytes of these blocks: what is kept of them is made anew."""
        block_ids = {part.block.id for part in wrong}
        self._store.part_sums.forget(block_ids)
        self._forgotten_count += 1  # who began before is not kept, who begins now has no such sums
        self._kept.drop_if(lambda kept: kept.hit[0].id in block_ids)

    def _found(self, key: Key, start: int, end: int, wait: bool) -> _Found | None:
        """Bytes `[start, end)` of an object; None: they are not to be had."""
        known, part_bytes = self._known_get(key), self._part_bytes
        if known is not None:
            known.used = True
            if end - start == part_bytes and end <= known.object_end and self._parts_fit:  # mostly
                opened, sums = self._opened(known.id), self._sums_get(known.id)
                within = start - known.start
                if opened is not None and sums is not None and not within % part_bytes:
                    wanted = sums.numbers[within // part_bytes]
                    try:
                        data = opened.file.pread(part_bytes, within, wait) if wanted else b""
                    except OSError:
                        data = b""  # closed meanwhile, or broken: whoever pins it will know
                    if xxh3_64_intdigest(data) == wanted and len(data) == part_bytes:
                        return known, data, wanted, opened.file
        page_bytes = self._page_bytes
        if start >= end or start // page_bytes != (end - 1) // page_bytes:
            return None
        one = known or self.known.worked_out(key)
        if one is None or end > one.object_end:
            return None
        start -= one.start
        end -= one.start
        found = self._of_parts(one, start, end, wait) or self._of_page(one, start, end, wait)
        if known is None and found is not None:
            self.known.keep(key, one)
        return found

    def _of_parts(self, known: KnownBlock, start: int, end: int, wait: bool) -> _Found | None:
        """Bytes `[start, end)` of a block, the parts that they lie in read and checked alone; None:
        it is not known what they must be, or they are not that.
        """
        part_bytes, opened = self._part_bytes, self._opened(known.id)
        if opened is None or end - start > SMALL_BODY_BYTES:
            return None
        page, within = divmod(start, self._page_bytes)
        first, skipped = divmod(within, part_bytes)
        try:
            sums = self._sums_of(known.id, page)
            if sums is None:
                return None
            read_start = start - skipped
            read_end = read_start - (read_start - end) // part_bytes * part_bytes
            read_end = min(read_end, (page + 1) * self._page_bytes, known.length_bytes)
            data = opened.file.pread(read_end - read_start, read_start, wait=wait)
        except OSError:
            return None  # closed meanwhile, or broken: whoever pins it will know
        if len(data) != read_end - read_start or not parts.match(data, part_bytes, sums, first):
            return None
        body = data[skipped : skipped + end - start]
        return known, body, xxh3_64_intdigest(body), opened.file

    def _of_page(self, known: KnownBlock, start: int, end: int, wait: bool) -> _Found | None:
        """Bytes of a block, the page that they lie in read and checked as a whole; None: the page
        is not here, or not right.
        """
        page, first = divmod(start, self._page_bytes)
        if not wait and self._store.at_hand(known.block) is None:
            return None
        pin = self._store.hold(known.block)
        if pin is None:
            return None
        try:
            data = self._checked_page(pin, page, wait) if pin.present >> page & 1 else None
            file = pin.held.file
        finally:
            pin.close()
        if data is None:
            return None
        self._store.part_sums.note(known.block, page, parts.of_page(data, self._part_bytes))
        body = data[first : first + end - start]
        return known, body, xxh3_64_intdigest(body), file
