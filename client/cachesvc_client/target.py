"""Where the bytes of a read end up: the caller's buffer, or new bytes objects made without a copy.

Rules: the ranges of a read are first joined to disjoint spans, sorted; each span has room of its
own; nobody sees the room before the read is over. A read that failed leaves it undefined.

Story: `spans` joins the ranges. `Room.begin` learns the object's size and makes room for each span
cut to it; lanes receive into `view`; `result` hands out what was asked for, copying only where a
range is a part of a span. Pure: no I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from cachesvc.core.errors import ProtocolError, RangeError
from cachesvc.core.memory import fresh_bytes
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.wire.codec import END_OF_OBJECT

Range = tuple[int, int | None]
Span = tuple[int, int]  # END_OF_OBJECT where the range has no end

GAP_BYTES = 64 << 10  # between ranges, which costs less to read than one range more (decision 15)
_IN_PLACE_BYTES = 64 << 10  # below, a copy costs less than the view


def spans(name: ObjectName, ranges: Sequence[Range]) -> list[Span]:
    """The ranges without the empty ones, sorted, joined where they touch.

    Raises:
        RangeError: one is negative or reversed.
    """
    wanted = []
    for start, end in ranges:
        if start < 0 or (end is not None and end < start):
            raise RangeError(
                f"{name}: range [{start}, {end}) is negative or reversed: give 0 <= start <= end,"
                " in bytes"
            )
        if end is None or end > start:
            wanted.append((start, END_OF_OBJECT if end is None else min(end, END_OF_OBJECT)))
    return joined(wanted)


def joined(wanted: Iterable[Span], gap_bytes: int = 0) -> list[Span]:
    """The spans, sorted, those made one that overlap or have at most `gap_bytes` between them."""
    found: list[Span] = []
    for start, end in sorted(wanted):
        if found and start <= found[-1][1] + gap_bytes:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def new_bytes(size_bytes: int) -> tuple[bytes, memoryview]:
    """Room for so many bytes, and the object that has them once the view is full; empty if they are
    to be copied out of the view.
    """
    if size_bytes >= _IN_PLACE_BYTES:
        return fresh_bytes(size_bytes)
    return b"", memoryview(bytearray(size_bytes))


class _Delivered:
    """A target to which all bytes are delivered: no file is shown in place."""

    __slots__ = ()

    in_place = False

    def settled(self, *_where: int) -> None:
        return None

    def lay(self, *_where: int) -> None:
        return None


class Place(_Delivered):
    """The target of a read of one span, within an object of which the version is known."""

    __slots__ = ("_start", "_view")

    def __init__(self, start: int, view: memoryview) -> None:
        self._start = start
        self._view = view

    def begin(self, _version: ObjectVersion) -> None:
        return None

    def view(self, start: int, length_bytes: int) -> memoryview:
        """The room for bytes `[start, start + length_bytes)` of the object."""
        first = start - self._start
        if first < 0 or first + length_bytes > len(self._view):
            raise ProtocolError(f"bytes [{start}, {start + length_bytes}) were not asked for")
        return self._view[first : first + length_bytes]


class Room(_Delivered):
    """The target of a read of disjoint, sorted spans.

    into: the caller's buffer, for exactly one span that fits into it; None makes new bytes.
    """

    def __init__(self, wanted: Sequence[Span], into: memoryview | None = None) -> None:
        self._spans = wanted
        self._starts = [start for start, _ in wanted]
        self._into = into
        self._data: list[bytes] = []
        self._views: list[memoryview] = []
        self._version: ObjectVersion | None = None

    def begin(self, version: ObjectVersion) -> None:
        """Make room for the spans, cut to the object. A new version starts anew."""
        if self._version is not None and self._version.same_bytes(version):
            return
        sizes = [max(0, min(end, version.size_bytes) - start) for start, end in self._spans]
        self._data, self._views = [], []
        for size in sizes:
            if self._into is not None:
                self._views.append(self._into[:size])
            else:
                data, view = new_bytes(size)
                self._data.append(data)
                self._views.append(view)
        self._version = version

    def view(self, start: int, length_bytes: int) -> memoryview:
        """The room for bytes `[start, start + length_bytes)` of the object."""
        index = bisect_right(self._starts, start) - 1
        if index >= 0 and index < len(self._views):
            offset = start - self._starts[index]
            view = self._views[index][offset : offset + length_bytes]
            if len(view) == length_bytes:
                return view
        raise ProtocolError(f"bytes [{start}, {start + length_bytes}) were not asked for")

    def result(self, start: int, end: int) -> bytes:
        """Bytes `[start, end)`, within one span and the object, once the read is over."""
        if start == end:
            return b""
        index = bisect_right(self._starts, start) - 1
        offset = start - self._starts[index]
        view = self._views[index]
        if self._data and len(view) == end - start and len(self._data[index]) == len(view):
            return self._data[index]
        return bytes(view[offset : offset + end - start])
