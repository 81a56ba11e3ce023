"""The Range header: from HTTP's inclusive form to `[start, end)`.

Rules: what is not one valid byte range is ignored, as S3 does, so the whole object is sent; a range
that holds no byte of the object is 416.
"""

from __future__ import annotations

import re

from cachesvc.core.types import ByteRange
from cachesvc.gateway.errors import S3Error

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.IGNORECASE)
_MAX_DIGITS = 18


def asked_range(header: str | None) -> tuple[int | None, int | None] | None:
    """What the header asks for, of an object of any size: `[start, end)`, end None: to its end;
    start None: the last `end` bytes. None: all of it.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return None, _bounded(match[2])
    start, end = _bounded(match[1]), _bounded(match[2]) + 1 if match[2] else None
    return None if end is not None and end <= start else (start, end)


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The range of an object of that size that the header asks for; None: all of it.

    Raises:
        S3Error: 416, the range holds no byte of the object.
    """
    asked = asked_range(header)
    if asked is None:
        return None
    start, end = asked
    if start is None:
        start, end = max(0, size_bytes - (end or 0)), size_bytes
    end = size_bytes if end is None else min(end, size_bytes)
    if start >= end:
        raise S3Error(
            416,
            "InvalidRange",
            "The requested range is not satisfiable",
            {"RangeRequested": header or "", "ActualObjectSize": str(size_bytes)},
            {"Content-Range": f"bytes */{size_bytes}"},
        )
    return ByteRange(start, end)


def _bounded(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS
