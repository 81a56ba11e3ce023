"""Bytes that stand in a file which a node of this host has passed: shown in place, or copied.

Rules
- A segment vouches for its own range and no more: beside it the file may have holes. Its checksums
  are of all whole pages that it touches, so a page that belongs to it in part is read as a whole to
  be checked.
- Pages that are shown in place are checked once by a client in each state of their file
  (verified.py), and whenever they had to be read from the disk; what is copied is checked always.
- A file that is shorter than it should be, or cannot be read, is as wrong as a checksum that does
  not match: the bytes are asked for again.
"""

from __future__ import annotations

import os
from struct import unpack
from typing import TypeGuard

from xxhash import xxh3_64_intdigest

from cachesvc.core.blocks import cuts
from cachesvc.core.errors import CacheError
from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.wire.codec import END_OF_OBJECT, SegmentHead
from cachesvc_client import bounce
from cachesvc_client.effects import Target
from cachesvc_client.verified import Claim, State, Verified

SHOWN_BYTES = 64 << 10  # of a range that is shown in place: from here on it is worth a file
COPIED_BYTES = 4 << 20  # of one that is copied: below, bytes in the frame are quicker


def worth(request: ReadRequest | StatRequest, target: Target | None) -> TypeGuard[ReadRequest]:
    """Whether the answer should come as files: not a small one, nor what the node must check."""
    if isinstance(request, StatRequest) or request.verify or request.bypass or target is None:
        return False
    wanted_bytes = sum((END_OF_OBJECT if end is None else end) - s for s, end in request.ranges)
    least_bytes = SHOWN_BYTES if target.in_place else COPIED_BYTES
    return wanted_bytes >= least_bytes * len(request.ranges)


def accept(
    head: SegmentHead,
    file: int,
    target: Target,
    page_bytes: int,
    size_bytes: int,
    verified: Verified,
) -> bool:
    """Bring a segment where the target wants it; whether it is what its checksums say.

    size_bytes: of the object, whose last page may be short.
    """
    start, end = head.start, head.start + head.length_bytes
    first = start - start % page_bytes
    page_count = -(-end // page_bytes) - first // page_bytes
    if len(head.checksums) != page_count * CHECKSUM_BYTES or end > size_bytes:
        return False
    try:
        laid = target.lay(file, head.file_offset, start, head.length_bytes)
        if laid is None:
            view = target.view(start, head.length_bytes)
            return _copied(head, file, view, page_bytes, size_bytes)
        offset = head.file_offset - start
        claim = Claim(offset + first, page_bytes, offset + size_bytes, head.checksums)
        state = State.of(file)
        if not laid.was_read and verified.holds(state, claim):
            return True
        pages, sums = _pages(head, page_bytes, size_bytes)
        right = _right(head, file, laid.view, start, pages, sums)
        if right:
            verified.note(file, state, claim)
        return right
    except CacheError:
        raise
    except OSError:
        return False


def _pages(
    head: SegmentHead, page_bytes: int, size_bytes: int
) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
    """The pages that a segment touches, whole, in bytes of the object; and their checksums."""
    start, end = head.start, head.start + head.length_bytes
    first, beyond = start - start % page_bytes, -(-end // page_bytes) * page_bytes
    pages = list(cuts(first, min(beyond, size_bytes), page_bytes))
    return pages, unpack(f"<{len(pages)}Q", head.checksums)


def _copied(
    head: SegmentHead, file: int, view: memoryview, page_bytes: int, size_bytes: int
) -> bool:
    """Copy a segment to where its bytes belong, some pages at a time, checked while they are in a
    processor's cache; whether they are right.
    """
    end = head.start + head.length_bytes
    pages, sums = _pages(head, page_bytes, size_bytes)
    bounced = bounce.needed(view, head.file_offset)
    step = max(1, bounce.PIECE_BYTES // page_bytes)
    for number in range(0, len(pages), step):
        some = pages[number : number + step]
        first, beyond = max(some[0][0], head.start), min(some[-1][1], end)
        place = view[first - head.start : beyond - head.start]
        room = bounce.room(place) if bounced and len(place) <= bounce.PIECE_BYTES else place
        _read(file, room, head.file_offset + first - head.start)
        if room is not place:
            place[:] = room
        # what has arrived is checked: a signal's handler may have read by the same room meanwhile
        if not _right(head, file, place, first, some, sums[number : number + step]):
            return False
    return True


def _read(file: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.preadv(file, [view], offset)
        if count == 0:
            raise OSError("the file is shorter than it should be")
        view, offset = view[count:], offset + count


def _right(
    head: SegmentHead,
    file: int,
    view: memoryview,
    start: int,
    pages: list[tuple[int, int]],
    sums: tuple[int, ...],
) -> bool:
    """Whether pages are what their checksums say. view: of the object's bytes from `start` on,
    which are the segment's. A page of which it has a part is read whole, and the part compared.
    """
    end = start + len(view)
    for (first, beyond), wanted in zip(pages, sums, strict=True):
        if first >= start and beyond <= end:
            data: memoryview | bytes = view[first - start : beyond - start]
        else:
            data = os.pread(file, beyond - first, head.file_offset + first - head.start)
            ours, theirs = max(first, start), min(beyond, end)
            if bytes(view[ours - start : theirs - start]) != data[ours - first : theirs - first]:
                return False
        if xxh3_64_intdigest(data) != wanted:
            return False
    return True
