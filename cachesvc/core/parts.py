"""Checksums of parts of a page, made when the page is known to be right.

Story: a stored page has one checksum, so that whoever wants 4 KiB of it would have to read and hash
64 KiB. So a checksum of each part is made while the page is in hand: when it was filled, or by the
first who reads it after that; from then on the parts that a small read touches are read and checked
alone.

Rules: a part is believed for its checksum only, each time that it is read: that it was right before
says nothing of what the disk gives now. A part that does not match proves nothing but that the
whole page must be checked. Pure.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from xxhash import xxh3_64_intdigest

from cachesvc.core.format import CHECKSUM_BYTES, checksum

PER_PAGE = 16
SUMS_BYTES = PER_PAGE * CHECKSUM_BYTES  # the checksums of a page's parts


def part_bytes_of(page_bytes: int) -> int:
    """The size of a part; the last one of a page may be shorter."""
    return -(-page_bytes // PER_PAGE)


def of_page(page: bytes | memoryview, part_bytes: int) -> bytes:
    """The checksums of a page's parts, one after another; SUMS_BYTES, with zeros behind those of a
    page that has fewer parts.
    """
    return _sums_of(page, part_bytes).ljust(SUMS_BYTES, b"\0")


def _sums_of(data: bytes | memoryview, part_bytes: int) -> bytes:
    view = memoryview(data)
    slices, packed = _cut(len(view), part_bytes)
    return packed.pack(*[xxh3_64_intdigest(view[part]) for part in slices])


@lru_cache(64)
def _cut(length_bytes: int, part_bytes: int) -> tuple[list[slice], Struct]:
    starts = range(0, length_bytes, part_bytes)
    return [slice(start, start + part_bytes) for start in starts], Struct(f"<{len(starts)}Q")


def match(data: bytes, part_bytes: int, sums: bytes, first: int) -> bool:
    """Whether adjacent parts, from the one numbered `first` on, are what their checksums say."""
    if len(data) <= part_bytes:
        at = first * CHECKSUM_BYTES
        return checksum(data) == sums[at : at + CHECKSUM_BYTES]
    found = _sums_of(data, part_bytes)
    return sums.startswith(found, first * CHECKSUM_BYTES)
