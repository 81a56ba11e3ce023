"""What a read is answered with: a version, and segments of bytes that a lane can send.

Rules: a segment that was handed out belongs to the receiver, who closes it; an Answer is closed by
whoever asked for it, and what is still in it with it.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from xxhash import xxh3_64_intdigest

from cachesvc.core.blocks import Slice
from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.types import ObjectVersion, Source
from cachesvc.pins import Pin


@dataclass(slots=True)
class FilePart:
    """Bytes of a pinned block file: `[offset, offset + length_bytes)`."""

    pin: Pin
    offset: int
    length_bytes: int


Part = FilePart | memoryview


@dataclass(slots=True)
class Segment:
    """Adjacent bytes of an object, of one source, ready to be sent: the parts, one after another.

    start: offset in the object. checksums: xxh3-64, 8 bytes for each cut of the segment at page
    borders; empty on a bypass. file_offset: the segment is to be passed as a descriptor of the
    pinned file, where it begins there; it has no parts then, and checksums of whole pages.
    """

    start: int
    length_bytes: int
    source: Source
    checksums: bytes = b""
    parts: list[Part] = field(default_factory=list)
    pin: Pin | None = None
    file_offset: int | None = None

    def read_into(self, view: memoryview, start: int) -> int:
        """Copy the bytes from `start` of the object on, unchecked; how many there were."""
        filled, position, end = 0, self.start, start + len(view)
        for part in self.parts:
            length = part.length_bytes if isinstance(part, FilePart) else len(part)
            first, beyond = max(start - position, 0), min(end - position, length)
            position += length
            if first >= beyond:
                continue
            room = view[filled : filled + beyond - first]
            if isinstance(part, FilePart):
                filled += part.pin.readinto(room, part.offset + first)
            else:
                room[:] = part[first:beyond]
                filled += len(room)
        return filled

    def checksums_of(self, start: int, end: int, page_bytes: int) -> bytes:
        """The checksums of `[start, end)` of the object, whose borders are the segment's or a
        page's; empty on a bypass.
        """
        if not self.checksums:
            return b""
        first = start // page_bytes - self.start // page_bytes
        beyond = -(-end // page_bytes) - self.start // page_bytes
        return self.checksums[first * CHECKSUM_BYTES : beyond * CHECKSUM_BYTES]

    def close(self) -> None:
        """Let the pin go. Closing twice is fine."""
        if self.pin is not None:
            self.pin.close()


@dataclass(slots=True)
class Answer:
    """One version, for how long to believe that it is current, and its bytes.

    checked_at: when a version that was asked for was checked (versions.Checked).

    A hit has all its `segments`; anything else has them come from `more`, in order. An answer for
    an uncacheable version has neither: it is an invitation to bypass.

    Whoever asked closes it: by `aclose`, on the loop; a hit, which has nothing to be awaited and
    is sent by threads that have no loop, also by `close`.
    """

    version: ObjectVersion
    fresh_for_s: float
    segments: list[Segment] = field(default_factory=list)
    more: AsyncGenerator[Segment, None] | None = None
    resources: AsyncExitStack | None = None
    checked_at: float = float("-inf")

    def close(self) -> None:
        """Let go of a hit, on any thread."""
        assert self.more is None, "only a hit is closed without a loop"
        assert self.resources is None, "a bypass is closed on the loop"
        self._close_segments()

    def _close_segments(self) -> None:
        for segment in self.segments:
            segment.close()

    async def aclose(self) -> None:
        """Let go of any answer: segments, fills, the origin's connection of a bypass."""
        self._close_segments()
        try:
            if self.more is not None:
                await self.more.aclose()
        finally:
            if self.resources is not None:
                await self.resources.aclose()


def passed(pin: Pin, part: Slice, source: Source) -> Segment:
    """A slice, all of whose pages are present, as a segment to be passed as a descriptor."""
    page_bytes = part.block.geometry.page_bytes
    sums = pin.checksums(part.start // page_bytes, -(-part.end // page_bytes))
    return Segment(
        part.object_start, part.length_bytes, source, sums, pin=pin, file_offset=part.start
    )


async def take(answer: Answer) -> Segment | None:
    """The next segment of an answer, or None at its end. The taker closes it."""
    if answer.segments:
        return answer.segments.pop(0)
    return None if answer.more is None else await anext(answer.more, None)


def right(data: memoryview, start: int, sums: bytes, page_bytes: int) -> bool:
    """Whether the bytes from `start` of the object on match their checksums, if they have any."""
    if not sums:
        return True
    first, beyond = 0, page_bytes - start % page_bytes
    for expected in struct.unpack(f"<{len(sums) // CHECKSUM_BYTES}Q", sums):
        if xxh3_64_intdigest(data[first:beyond]) != expected:
            return False
        first, beyond = beyond, beyond + page_bytes
    return first >= len(data)
