"""Small hot reads: answers within one page, made in a few steps and kept for who asks again.

Story: a lane gives every whole request that it receives to `answer` first. The bytes of the request
are the key: what was answered before is sent again as it stands, header and body. Else the request
is split by hand (wire/lone.py), the page is read and checked, and the answer is made and kept. What
is anything but a stored range, within one page, of a version that the request names, is None, and
the way of all other requests.

Rules
- What is kept was checked when it was made, and rests on the block file that was open then. It is
  good only while the store still has that very file open for the block: eviction, a failed check, a
  lost device and a file closed for want of descriptors all end it. It is counted, and
  eviction policy and readahead told, like any hit.
- A request that names its version has one right answer for ever, so no age is asked for here. The
  epoch that an answer tells is the node's present one, or the answer is made anew.
- At most MAX_KEPT_BYTES are kept; what was not asked for again goes first (CLOCK). Versions are
  remembered once a block of theirs was found here, up to MAX_KNOWN_BYTES.
- Whoever asks with `verify` was sent wrong bytes: what is kept of those blocks is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from cachesvc.core.blocks import BlockRef, Slice
from cachesvc.core.errors import CacheError
from cachesvc.core.format import checksum
from cachesvc.core.request import SMALL_BODY_BYTES
from cachesvc.core.types import Geometry, Source
from cachesvc.disk.base import BlockFile
from cachesvc.pins import Pin
from cachesvc.store import Store
from cachesvc.wire import lone

MAX_KEPT_BYTES = 16 << 20  # of requests, answers and what it takes to keep them
MAX_KNOWN_BYTES = 8 << 20  # of blocks whose versions need not be unpacked again
MAX_IDENTITY_BYTES = 1536  # a key of 1024, its bucket, an ETag and some more
_ENTRY_BYTES = 1024  # of memory that an entry takes beside its request and answer
Hit = Callable[[list[Slice], list[tuple[Source, int]]], None]


@dataclass(slots=True)
class _Kept:
    """An answer, what it rests on, and what it counts as. used: asked for again since it was last
    looked at for eviction.
    """

    frame: bytes
    parts: list[Slice]
    file: BlockFile
    epoch: int
    sent: list[tuple[Source, int]]
    size_bytes: int
    used: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """A block that was asked for, and how the answers of its version begin."""

    block: BlockRef
    beginning: bytes


class SmallReads:
    """The small reads of one node. Any thread may call.

    checked_page: a page of a pinned block, None if it fails its check. hit: told of every answer,
    the slices and how many bytes came from where.
    """

    def __init__(
        self,
        store: Store,
        geometry: Geometry,
        checked_page: Callable[[Pin, int], bytes | None],
        hit: Hit,
        max_kept_bytes: int = MAX_KEPT_BYTES,
        max_known_bytes: int = MAX_KNOWN_BYTES,
    ) -> None:
        self._store = store
        self._geometry = geometry
        self._checked_page = checked_page
        self._hit = hit
        self._max_kept_bytes = max_kept_bytes
        self._max_known_bytes = max_known_bytes
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._known: dict[tuple[bytes, int], _Known] = {}
        self._lock = Lock()
        self.kept_bytes = 0
        self.known_bytes = 0

    def answer(self, request: bytes, epoch: int) -> bytes | None:
        """The whole answer to the whole frame of a request, or None: it must go the common way.

        Opens a file and reads a page, but waits for no one. epoch: the node's present one.
        """
        kept = self._kept.get(request)
        if (
            kept is not None
            and kept.epoch == epoch
            and self._store.touch(kept.parts[0].block.id, kept.file)
        ):
            kept.used = True
            self._hit(kept.parts, kept.sent)
            return kept.frame
        wanted = lone.split_read(request)
        made = None if wanted is None else self._made(*wanted, epoch)
        if made is None:
            return None
        if made.sent[0][1] <= SMALL_BODY_BYTES:
            self._keep(request, made)
        self._hit(made.parts, made.sent)
        return made.frame

    def forget(self, parts: list[Slice]) -> None:
        """Somebody was sent wrong bytes of these blocks: what is kept of them is made anew."""
        block_ids = {part.block.id for part in parts}
        with self._lock:
            for request, kept in list(self._kept.items()):
                if kept.parts[0].block.id in block_ids:
                    del self._kept[request]
                    self.kept_bytes -= kept.size_bytes

    def _made(self, identity: bytes, start: int, end: int, epoch: int) -> _Kept | None:
        page_bytes = self._geometry.page_bytes
        if start >= end or start // page_bytes != (end - 1) // page_bytes:
            return None
        index = start // self._geometry.block_bytes
        known = self._known.get((identity, index)) or self._unpacked(identity, index)
        if known is None or end > known.block.version.size_bytes:
            return None
        block = known.block
        page = (start - block.start) // page_bytes
        pin = self._store.hold(block)
        if pin is None:
            return None
        try:
            data = self._checked_page(pin, page) if pin.present >> page & 1 else None
            file = pin.held.file
            if data is None or not self._store.touch(block.id, file):
                return None
        finally:
            pin.close()
        self._know(identity, known)
        first = start % page_bytes
        body = data[first : first + end - start]
        before, after = lone.answer_around(known.beginning, start, len(body), 8, epoch)
        frame = b"".join((before, checksum(body), after, body))
        part = Slice(block, start - block.start, end - block.start)
        return _Kept(frame, [part], file, epoch, [(Source.DISK, len(body))], 0)

    def _unpacked(self, identity: bytes, index: int) -> _Known | None:
        """The block of a version that can be cached; None: the request is wrong, or bypasses, or
        has more in it than it needs.
        """
        if len(identity) > MAX_IDENTITY_BYTES:
            return None
        try:
            version = lone.version_of(identity)
            return _Known(BlockRef(version, index, self._geometry), lone.answer_start(version))
        except (CacheError, ValueError):
            return None

    def _know(self, identity: bytes, known: _Known) -> None:
        """Remember a block that is here."""
        key = identity, known.block.index
        if key in self._known:
            return
        size_bytes = 2 * len(identity) + _ENTRY_BYTES  # in the key, and unpacked
        with self._lock:
            if self.known_bytes + size_bytes > self._max_known_bytes:
                self._known.clear()
                self.known_bytes = 0
            if key not in self._known:
                self._known[key] = known
                self.known_bytes += size_bytes

    def _keep(self, request: bytes, made: _Kept) -> None:
        made.size_bytes = len(request) + len(made.frame) + _ENTRY_BYTES
        with self._lock:
            old = self._kept.pop(request, None)
            self._kept[request] = made
            self.kept_bytes += made.size_bytes - (old.size_bytes if old else 0)
            while self.kept_bytes > self._max_kept_bytes:
                key, oldest = self._kept.popitem(last=False)
                if oldest.used:
                    oldest.used = False
                    self._kept[key] = oldest
                else:
                    self.kept_bytes -= oldest.size_bytes
