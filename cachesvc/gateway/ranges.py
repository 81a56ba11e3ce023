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


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The range of an object of that size that the header asks for; None: all of it.

    Raises:
        S3Error: 416, the range holds no byte of the object.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    first, last = match[1], match[2]
    if first:
        start = _bounded(first)
        end = size_bytes if not last else min(_bounded(last) + 1, size_bytes)
        if last and _bounded(last) < start:
            return None
    else:
        start, end = max(0, size_bytes - _bounded(last)), size_bytes
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
