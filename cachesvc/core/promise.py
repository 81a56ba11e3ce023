"""What the head of an origin's answer promises of an object's bytes, held to what was asked for.

Rules: the range promised is exactly the one asked for, cut to the object's end, and the length
agrees: nothing shorter, longer or elsewhere is taken. Pure.
"""

from __future__ import annotations

import re

from cachesvc.core.types import ByteRange, ObjectName, clamp

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


def size_told(content_range: str | None) -> int | None:
    """The object's size in bytes that a Content-Range tells; None if it tells none."""
    found = _told(content_range)
    return None if found is None else found[2]


def promised(
    name: ObjectName,
    asked: tuple[int, int | None],
    status: int,
    content_range: str | None,
    length_bytes: int | None,
) -> tuple[int, ByteRange]:
    """The object's size in bytes, and the range of it that a GET's answer brings.

    asked: `[start, end)`, end None for the object's end. status: 200 or 206. content_range: the
    field as it came. length_bytes: the Content-Length; None: the answer has none.

    Raises:
        ValueError: the answer is not of what was asked for, or does not prove it. RangeError, which
        is one too: what was asked for begins beyond the object's end.
    """
    if length_bytes is None or length_bytes < 0:
        raise ValueError(f"{name}: the origin answers with Content-Length {length_bytes}")
    size_bytes, first, beyond = length_bytes, 0, length_bytes
    if status == 206:
        found = _told(content_range)
        if found is None:
            raise ValueError(
                f"{name}: the origin answers a range with Content-Range {content_range!r}"
            )
        first, beyond, size_bytes = found
    wanted = clamp(name, *asked, size_bytes)
    if (first, beyond, length_bytes) != (wanted.start, wanted.end, wanted.length_bytes):
        raise ValueError(
            f"{name}: bytes [{wanted.start}, {wanted.end}) were asked for, and the origin answers"
            f" {status} with Content-Range {content_range!r} and Content-Length {length_bytes}"
        )
    return size_bytes, wanted


def _told(content_range: str | None) -> tuple[int, int, int] | None:
    """The first byte, the one beyond the last, and the object's size."""
    found = _CONTENT_RANGE.fullmatch(content_range or "")
    return None if found is None else (int(found[1]), int(found[2]) + 1, int(found[3]))
