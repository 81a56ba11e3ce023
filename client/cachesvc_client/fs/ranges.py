"""Many ranges of one object, as few as a node is well asked for. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from cachesvc_client.target import GAP_BYTES, joined

Bounds = tuple[int | None, int | None]


def bounded(start: int | None, end: int | None, size_bytes: int) -> tuple[int, int]:
    """Start and end as a slice of the object would take them: negative ones count from its end."""
    first, beyond, _ = slice(start, end).indices(size_bytes)
    return first, max(first, beyond)


def read_joined(
    ranges: Sequence[tuple[int, int]], read: Callable[[list[tuple[int, int]]], list[bytes]]
) -> list[bytes]:
    """The bytes of all ranges, in order, those that are near each other read as one."""
    spans = joined((one for one in ranges if one[0] < one[1]), GAP_BYTES)
    pieces, starts = read(spans), [start for start, _ in spans]
    found = []
    for start, end in ranges:
        if start >= end:
            found.append(b"")
            continue
        place = bisect_right(starts, start) - 1
        offset = start - starts[place]
        found.append(pieces[place][offset : offset + end - start])
    return found
