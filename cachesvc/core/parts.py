"""Checksums of parts of a page, made from a page that was just checked as a whole.

Story: a stored page has one checksum, so that whoever wants 4 KiB of it would have to read and hash
64 KiB. The first who does makes a checksum of each part on the way; from then on the parts that a
small read touches are read and checked alone.

Rules: a part is believed for its checksum only, each time that it is read: that it was right before
says nothing of what the disk gives now. A part that does not match proves nothing but that the
whole page must be checked. Pure.
"""

from __future__ import annotations

from cachesvc.core.format import CHECKSUM_BYTES, checksum

PER_PAGE = 16


def part_bytes_of(page_bytes: int) -> int:
    """The size of a part; the last one of a page may be shorter."""
    return -(-page_bytes // PER_PAGE)


def sums_of(page: bytes, part_bytes: int) -> bytes:
    """The checksums of a page's parts, one after another."""
    view = memoryview(page)
    starts = range(0, len(page), part_bytes)
    return b"".join([checksum(view[start : start + part_bytes]) for start in starts])


def match(data: bytes, part_bytes: int, sums: bytes, first: int) -> bool:
    """Whether adjacent parts, from the one numbered `first` on, are what their checksums say."""
    if len(data) <= part_bytes:
        at = first * CHECKSUM_BYTES
        return checksum(data) == sums[at : at + CHECKSUM_BYTES]
    found = sums_of(data, part_bytes)
    return sums.startswith(found, first * CHECKSUM_BYTES)
