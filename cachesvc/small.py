"""Small hot reads: answers within one page, made in a few steps and kept for who asks again.

Story: a lane gives every whole request to `answer`, unless it is a large one known from before
(repeats.py). The bytes of the request are the key: what was answered before is sent again as it
stands, header and body. Else the request is split by hand (wire/lone.py), the bytes are read and
checked, and the answer is made and kept. The first read of a page checks all of it; later ones read
and check the parts that they touch (parts.py). What is anything but a stored range, within one
page, of a version that the request names, is None, and the way of all other requests.

Rules
- What is kept was checked when it was made, and rests on the block file that was open then, as do
  the checksums of parts. Both are good only while the store still has that very file open for the
  block: eviction, a failed check, a lost device and a file closed for want of descriptors all end
  it. It is counted, and eviction policy and readahead told, like any hit, but behind its sending.
- Parts are read without a pin: should the file be closed meanwhile, the read fails, or its bytes do
  not match, and the page is pinned and checked as a whole.
- A request that names its version has one right answer for ever, so no age is asked for here. The
  epoch that an answer tells is the node's present one, or the answer is made anew.
- At most MAX_KEPT_BYTES are kept; what was not asked for again goes first (CLOCK). Blocks are
  remembered, with their checksums of parts, once they were found here, up to MAX_KNOWN_BYTES;
  those that were found first go first.
- Whoever asks with `verify` was sent wrong bytes: what is kept of those blocks is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from cachesvc.core import parts
from cachesvc.core.blocks import BlockRef, Slice
from cachesvc.core.errors import CacheError
from cachesvc.core.format import checksum
from cachesvc.core.request import SMALL_BODY_BYTES
from cachesvc.core.types import Geometry, ObjectVersion
from cachesvc.disk.base import BlockFile
from cachesvc.kept import Kept
from cachesvc.pins import Pin
from cachesvc.store import Store
from cachesvc.wire import lone

MAX_KEPT_BYTES = 16 << 20  # of requests, answers and what it takes to keep them
MAX_KNOWN_BYTES = 8 << 20  # of blocks whose versions need not be unpacked, nor pages be checked
MAX_IDENTITY_BYTES = 1536  # a key of 1024, its bucket, an ETag and some more
_ENTRY_BYTES = 1024  # of memory that an entry takes beside its request and answer
_SUMS_BYTES = 300  # of memory that the checksums of one page's parts take
Hit = Callable[[BlockRef, int, int], None]
_Key = tuple[bytes | ObjectVersion, int]  # as its version was named, and the block's index


@dataclass(slots=True)
class SmallAnswer:
    """The whole frames of a request and its answer, which is `[start, end)` of a block, and the
    file that it rests on. used: asked for again since it was last looked at for eviction.
    """

    request: bytes
    frame: bytes
    block: BlockRef
    id: bytes
    start: int
    end: int
    file: BlockFile
    epoch: int
    size_bytes: int = 0
    used: bool = False


@dataclass(slots=True)
class _Known:
    """A block that was asked for, and how the answers of its version begin. sums: by page, the
    checksums of its parts, made while `file` was open.
    """

    block: BlockRef
    beginning: bytes
    size_bytes: int
    file: BlockFile | None = None
    sums: dict[int, bytes] = field(default_factory=dict)


class SmallReads:
    """The small reads of one node. Any thread may call.

    checked_page: a page of a pinned block, None if it fails its check, or, where one is not to
    wait, if it is not in memory. hit: told of every answer:
    the block, and from which of its bytes to which.
    """

    def __init__(
        self,
        store: Store,
        geometry: Geometry,
        checked_page: Callable[[Pin, int, bool], bytes | None],
        hit: Hit,
        max_kept_bytes: int = MAX_KEPT_BYTES,
        max_known_bytes: int = MAX_KNOWN_BYTES,
    ) -> None:
        self._store = store
        self._geometry = geometry
        self._part_bytes = parts.part_bytes_of(geometry.page_bytes)
        self._checked_page = checked_page
        self._hit = hit
        self._max_known_bytes = max_known_bytes
        self._kept: Kept[bytes, SmallAnswer] = Kept(max_kept_bytes)
        self._known: OrderedDict[_Key, _Known] = OrderedDict()
        self._lock = Lock()
        self.known_bytes = 0

    @property
    def kept_bytes(self) -> int:
        return self._kept.size_bytes

    def answer(self, request: bytes, epoch: int) -> SmallAnswer | None:
        """The answer to the whole frame of a request, of which `sent` is to be told; or None: it
        must go the common way.

        Opens a file and reads a page, but waits for no one. epoch: the node's present one.
        """
        kept = self._kept.get(request)
        if kept is not None and kept.epoch == epoch and self._store.has_open(kept.id, kept.file):
            return kept
        wanted = lone.split_read(request)
        return None if wanted is None else self._made(request, *wanted, epoch)

    def sent(self, answer: SmallAnswer) -> None:
        """It was a hit: who counts is told, now that nobody waits for it, and it is kept."""
        self._store.touch(answer.id)
        self._hit(answer.block, answer.start, answer.end)
        if answer.size_bytes:
            answer.used = True
        elif answer.end - answer.start <= SMALL_BODY_BYTES:
            answer.size_bytes = len(answer.request) + len(answer.frame) + _ENTRY_BYTES
            self._kept.keep(answer.request, answer)

    def body(self, version: ObjectVersion, start: int, end: int) -> bytes | None:
        """Bytes `[start, end)` of a version that has them, checked, for who makes the answer
        himself; None: they lie in more than one page, or a disk would have to be waited for.
        """
        page_bytes, block_bytes = self._geometry.page_bytes, self._geometry.block_bytes
        if start >= end or start // page_bytes != (end - 1) // page_bytes:
            return None
        index = start // block_bytes
        key = version, index
        known = self._known.get(key)
        if known is None:
            block = BlockRef(version, index, self._geometry)
            known = _Known(block, b"", 2 * len(version.name.key) + _ENTRY_BYTES)
        first, beyond = start - index * block_bytes, end - index * block_bytes
        body, _ = self._checked(key, known, first, beyond, wait=False)
        if body is not None:
            self._store.touch(known.block.id)
            self._hit(known.block, first, beyond)
        return body

    def forget(self, wrong: list[Slice]) -> None:
        """Somebody was sent wrong bytes of these blocks: what is kept of them is made anew."""
        block_ids = {part.block.id for part in wrong}
        self._kept.drop_if(lambda kept: kept.block.id in block_ids)
        with self._lock:
            for key, known in list(self._known.items()):
                if known.block.id in block_ids:
                    del self._known[key]
                    self.known_bytes -= known.size_bytes

    def _made(
        self, request: bytes, identity: bytes, start: int, end: int, epoch: int
    ) -> SmallAnswer | None:
        page_bytes = self._geometry.page_bytes
        if start >= end or start // page_bytes != (end - 1) // page_bytes:
            return None
        index = start // self._geometry.block_bytes
        key = identity, index
        known = self._known.get(key) or self._unpacked(identity, index)
        if known is None or end > known.block.version.size_bytes:
            return None
        block_start = index * self._geometry.block_bytes
        first, beyond = start - block_start, end - block_start
        body, file = self._checked(key, known, first, beyond, wait=True)
        if body is None or file is None:
            return None
        before, after = lone.answer_around(known.beginning, start, end - start, 8, epoch)
        frame = b"".join((before, checksum(body), after, body))
        return SmallAnswer(request, frame, known.block, known.block.id, first, beyond, file, epoch)

    def _checked(
        self, key: _Key, known: _Known, start: int, end: int, *, wait: bool
    ) -> tuple[bytes | None, BlockFile | None]:
        """Bytes `[start, end)` of a block, and the file that they are of; None: not to be had."""
        body, file = self._of_parts(known, start, end, wait=wait), known.file
        if body is None or file is None or not self._store.has_open(known.block.id, file):
            return self._of_page(key, known, start, end, wait=wait)
        return body, file

    def _of_parts(self, known: _Known, start: int, end: int, *, wait: bool) -> bytes | None:
        """Bytes `[start, end)` of a block, the parts that they lie in read and checked alone."""
        page_bytes, part_bytes = self._geometry.page_bytes, self._part_bytes
        page, offset = divmod(start, page_bytes)
        sums, file = known.sums.get(page), known.file
        if sums is None or file is None or end - start > SMALL_BODY_BYTES:
            return None
        first = offset // part_bytes
        read_start = page * page_bytes + first * part_bytes
        parts_end = read_start + -(-(end - read_start) // part_bytes) * part_bytes
        read_end = min(parts_end, (page + 1) * page_bytes, known.block.length_bytes)
        try:
            data = file.pread(read_end - read_start, read_start, wait=wait)
        except OSError:
            return None  # closed meanwhile, or broken: whoever pins it will know
        if len(data) != read_end - read_start or not parts.match(data, part_bytes, sums, first):
            return None
        return data[start - read_start : end - read_start]

    def _of_page(
        self, key: _Key, known: _Known, start: int, end: int, *, wait: bool
    ) -> tuple[bytes | None, BlockFile | None]:
        """Bytes of a block, the page that they lie in read and checked as a whole, and the file;
        None: the page is not here, or not right.
        """
        page, first = divmod(start, self._geometry.page_bytes)
        if not wait and self._store.at_hand(known.block) is None:
            return None, None
        pin = self._store.hold(known.block)
        if pin is None:
            return None, None
        try:
            data = self._checked_page(pin, page, wait) if pin.present >> page & 1 else None
            file = pin.held.file
            if data is None or not self._store.has_open(known.block.id, file):
                return None, None
        finally:
            pin.close()
        self._know(key, known, file, page, parts.sums_of(data, self._part_bytes))
        return data[first : first + end - start], file

    def _unpacked(self, identity: bytes, index: int) -> _Known | None:
        """The block of a version that can be cached; None: the request is wrong, or bypasses, or
        has more in it than it needs.
        """
        if len(identity) > MAX_IDENTITY_BYTES:
            return None
        try:
            version = lone.version_of(identity)
            block, beginning = BlockRef(version, index, self._geometry), lone.answer_start(version)
        except (CacheError, ValueError):
            return None
        # the identity stands in the key, and unpacked
        return _Known(block, beginning, 2 * len(identity) + _ENTRY_BYTES)

    def _know(self, key: _Key, known: _Known, file: BlockFile, page: int, sums: bytes) -> None:
        """Remember a block that is here, and the checksums of a page that was right."""
        with self._lock:
            before_bytes = known.size_bytes if key in self._known else 0
            if self._known.setdefault(key, known) is not known:
                return  # another thread was first; the page is checked once more, and remembered
            if known.file is not file:
                known.size_bytes -= _SUMS_BYTES * len(known.sums)
                known.sums = {}
                known.file = file
            known.size_bytes += _SUMS_BYTES * (page not in known.sums)
            known.sums[page] = sums
            self.known_bytes += known.size_bytes - before_bytes
            while self.known_bytes > self._max_known_bytes:
                _, oldest = self._known.popitem(last=False)
                self.known_bytes -= oldest.size_bytes
