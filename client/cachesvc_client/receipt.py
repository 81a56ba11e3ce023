"""Checks one answer of a node against its request, segment by segment, before anybody believes it.

Rules
- Segments come exactly in the order of the ranges asked, without a gap or an overlap, and add up to
  them; anything else is ProtocolError, before a byte of the segment is received.
- One answer, one version: the one asked for, where one was named.
- Every byte is held to its checksums (`check`); only a bypass that was asked for comes without.

Story: a lane makes a Receipt for each request. For every header, `take` says where the bytes of its
segments go; the lane receives them there, tells the `check` of a segment what has landed, and calls
`settle`. Where files were passed instead, it is `take_files` and `settle`. After the last header,
`reply` is what the driver sends back. Pure: the lanes and the simulator share it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from struct import unpack

from xxhash import xxh3_64_intdigest

from cachesvc.core.blocks import cuts
from cachesvc.core.errors import CorruptAnswer, ObjectChanged, ProtocolError
from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ByteRange, ObjectVersion, Source, clamp
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc_client.effects import Reply, Target


class Check:
    """Holds a segment to its checksums, page by page, while its bytes come into `data`: each page
    when it is whole, and still in the processor's cache. Without checksums, only a bypass is right.
    """

    def __init__(self, head: SegmentHead, data: memoryview, page_bytes: int) -> None:
        count, odd_bytes = divmod(len(head.checksums), CHECKSUM_BYTES)
        end = head.start + head.length_bytes
        pages = list(cuts(head.start, end, page_bytes)) if count else []
        bypassed = head.source is Source.BYPASS or not head.length_bytes
        self._fits = len(data) == head.length_bytes and not odd_bytes
        self._fits &= count == len(pages) and (count > 0 or bypassed)
        sums = unpack(f"<{count}Q", head.checksums) if self._fits else ()
        self._data = data
        self._left = deque(
            (beyond - head.start, first - head.start, wanted)
            for (first, beyond), wanted in zip(pages if self._fits else (), sums, strict=True)
        )

    def landed(self, count_bytes: int) -> None:
        """So many of the bytes have come."""
        left = self._left
        while left and left[0][0] <= count_bytes:
            end, start, wanted = left.popleft()
            if xxh3_64_intdigest(self._data[start:end]) != wanted:
                self._fits = False

    @property
    def right(self) -> bool:
        """Whether all bytes have come, and are what the checksums say."""
        return self._fits and not self._left


class Receipt:
    """The progress of one answer to `request`. `who` names the node in messages.

    range_count: of the ranges, how many are answered in full.
    """

    def __init__(self, request: ReadRequest, target: Target, page_bytes: int, who: str) -> None:
        self._request = request
        self._target = target
        self._page_bytes = page_bytes
        self.who = who
        self._version: ObjectVersion | None = None
        self._fresh_for_s = 0.0
        self._epoch = 0
        self._sources: dict[Source, int] = {}
        self._ranges: Iterator[ByteRange] = iter(())
        self._position = 0
        self._end = 0
        self.range_count = 0
        self._complete = False
        self._last = False

    def take(self, head: ReadHead, body_bytes: int) -> list[tuple[SegmentHead, memoryview]]:
        """Where the bytes of the header's segments go, in order. body_bytes: what the frame says.

        Raises:
            ProtocolError: the header is none that may come now.
            ObjectChanged: a bypass answers with another version than was named.
        """
        if any(one.descriptor is not None for one in head.segments):
            raise self._wrong("speaks of files that it does not pass")
        self._take(head, body_bytes)
        places = [(one, self._place(one)) for one in head.segments]
        self._last = head.last
        return places

    def take_files(self, head: ReadHead, body_bytes: int, file_count: int) -> list[SegmentHead]:
        """The header's segments, in order, whose bytes stand in the files that were passed with it.

        Raises:
            ProtocolError: the header is none that may come now.
        """
        if not self._request.descriptors:
            raise self._wrong("passes files that nobody asked for")
        self._take(head, body_bytes)
        for one in head.segments:
            if one.descriptor is None or one.descriptor >= file_count:
                raise self._wrong(f"names no file, or one beyond the {file_count} that it passes")
            if one.file_offset < one.start % self._page_bytes or one.file_offset > 1 << 60:
                raise self._wrong(f"has bytes at {one.start} from byte {one.file_offset} of a file")
            self._advance(one)
        self._last = head.last
        return list(head.segments)

    @property
    def size_bytes(self) -> int:
        """Of the object, once its version is known."""
        assert self._version is not None, "no version was named yet"
        return self._version.size_bytes

    def _take(self, head: ReadHead, body_bytes: int) -> None:
        if self._last:
            raise self._wrong("goes on after its end")
        if body_bytes != head.body_bytes:
            raise self._wrong(f"has {body_bytes} bytes where its header says {head.body_bytes}")
        if head.pending and (head.segments or head.last):
            raise self._wrong("says that it is pending, and is not")
        self._epoch = head.epoch or self._epoch
        if head.version is not None:
            self._begin(head.version, head.fresh_for_s)
        if head.segments and self._version is None:
            raise self._wrong("sends bytes of no version")

    def check(self, head: SegmentHead, data: memoryview) -> Check:
        """The check of a segment whose bytes are about to come into `data`; then `settle` it."""
        return Check(head, data, self._page_bytes)

    def settle(self, head: SegmentHead, *, right: bool) -> None:
        """The bytes of a segment are where they belong, and are right or not.

        Raises:
            CorruptAnswer: they are not.
        """
        if not right:
            raise does_not_match(self._request, head, self.who)
        self._sources[head.source] = self._sources.get(head.source, 0) + head.length_bytes
        self._target.settled(head.start, head.length_bytes)

    def reply(self) -> Reply:
        """The whole answer.

        Raises:
            ProtocolError: something is missing.
        """
        if not self._last or self._version is None:
            raise self._wrong("ends too early")
        invited = not self._version.cacheable and not self._request.bypass and not self._sources
        if not self._complete and not invited:
            raise self._wrong(f"is short: it ends before byte {self._end}")
        return Reply(self._version, self._fresh_for_s, self._sources, self._epoch)

    def _begin(self, version: ObjectVersion, fresh_for_s: float) -> None:
        request, wanted = self._request, self._request.version
        if self._version is not None:
            if not same_version(version, self._version):
                raise self._wrong("mixes two versions")
            return
        if wanted is None:
            self._target.begin(version)
        elif not same_version(version, wanted):
            if not request.bypass:
                raise self._wrong(f"is of version {version.etag}, not {wanted.etag}")
            raise ObjectChanged(f"{request.name}: version {wanted.etag} is gone from the origin")
        self._version, self._fresh_for_s = version, fresh_for_s
        size_bytes = version.size_bytes
        self._ranges = iter(
            [clamp(request.name, start, end, size_bytes) for start, end in request.ranges]
        )
        self._next_range()

    def _place(self, head: SegmentHead) -> memoryview:
        self._advance(head)
        return self._target.view(head.start, head.length_bytes)

    def _advance(self, head: SegmentHead) -> None:
        if head.source is Source.BYPASS and not self._request.bypass:
            raise self._wrong("sends unchecked bytes without being asked for them")
        if self._complete or head.start != self._position:
            raise self._wrong(f"has bytes at {head.start} where {self._position} is next")
        if head.start + head.length_bytes > self._end:
            raise self._wrong(f"has {head.length_bytes} bytes at {head.start}, beyond {self._end}")
        self._position += head.length_bytes
        if self._position == self._end:
            self.range_count += 1
            self._next_range()

    def _next_range(self) -> None:
        for one in self._ranges:
            if one.length_bytes:
                self._position, self._end = one.start, one.end
                return
        self._complete = True

    def _wrong(self, what: str) -> ProtocolError:
        return ProtocolError(f"{self._request.name}: the answer of {self.who} {what}")


def does_not_match(request: ReadRequest, head: SegmentHead, who: str) -> CorruptAnswer:
    """That a segment from `who` is not what its checksums say."""
    return CorruptAnswer(
        f"{request.name}: bytes [{head.start}, {head.start + head.length_bytes}) from {who}"
        f" ({head.source.name.lower()}) do not match their checksum"
    )


def same_version(one: ObjectVersion, other: ObjectVersion) -> bool:
    """Whether two values name one version; a weak ETag counts only with the time of change."""
    agree = one.cacheable or one.last_modified_ms == other.last_modified_ms
    return agree and one.same_bytes(other)
