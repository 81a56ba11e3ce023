"""What the development origin sends for one object: the honest answer, or a fault's lie.

Rules
- Pure: sizes, an ETag and a range in; status, headers and segments of bytes out. No I/O.
- The body is the segments one after another; Content-Length is their sum.

Story: `compose` begins with the honest answer and lets each fault bend it; faults of the connection
become `Stop`s, places in the body where something happens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cachesvc.devorigin.faults import Fault

FILE, FLIPPED, ZEROS = "file", "flipped", "zeros"


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes of a body. source: FILE as they stand at offset, FLIPPED the same inverted, ZEROS."""

    offset: int
    length_bytes: int
    source: str = FILE


@dataclass(frozen=True, slots=True)
class Stop:
    """A place in the body where a cut, reset or stall happens."""

    at_bytes: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (without Content-Length), body and its stops, in order."""

    status: int
    headers: dict[str, str]
    segments: tuple[Segment, ...]
    stops: tuple[Stop, ...]

    @property
    def length_bytes(self) -> int:
        return sum(segment.length_bytes for segment in self.segments)


def compose(
    size_bytes: int, etag: str, span: tuple[int, int] | None, faults: Sequence[Fault]
) -> Answer:
    """The answer for `span` (half open, not empty; None: the whole object), bent by the faults."""
    kinds = {fault.kind: fault for fault in faults}
    if "full_200" in kinds:
        span = None
    start, end = span or (0, size_bytes)
    if span and "wrong_range" in kinds:
        start, end = (start - 1, end - 1) if start else (1, end + 1)
    headers = {"Accept-Ranges": "bytes"} | _etag_header(etag, kinds)
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size_bytes}"
    source = FLIPPED if "etag_change" in kinds else FILE
    length = end - start
    send = length
    if fault := kinds.get("short_length"):
        send = min(_or(fault.after_bytes, length // 2), max(0, length - 1))
    from_file = max(0, min(send, size_bytes - start))
    padding = send - from_file
    if fault := kinds.get("long_length"):
        padding += _or(fault.after_bytes, 1)
    segments = (Segment(start, from_file, source), Segment(0, padding, ZEROS))
    return Answer(
        206 if span else 200,
        headers,
        tuple(segment for segment in segments if segment.length_bytes),
        _stops(faults, from_file + padding),
    )


def changed_etag(etag: str) -> str:
    """The other ETag of etag_change: always the same one for the same object."""
    digest = hashlib.md5(f"changed {etag}".encode(), usedforsecurity=False)
    return f'"{digest.hexdigest()}"'


def _etag_header(etag: str, kinds: dict[str, Fault]) -> dict[str, str]:
    if "no_etag" in kinds:
        return {}
    if "etag_change" in kinds:
        etag = changed_etag(etag)
    return {"ETag": f"W/{etag}" if "weak_etag" in kinds else etag}


def _stops(faults: Sequence[Fault], length_bytes: int) -> tuple[Stop, ...]:
    stops = []
    for fault in faults:
        if fault.kind not in ("cut", "reset", "stall"):
            continue
        last = length_bytes if fault.kind == "stall" else max(0, length_bytes - 1)
        stops.append(Stop(min(_or(fault.after_bytes, length_bytes // 2), last), fault))
    return tuple(sorted(stops, key=lambda stop: stop.at_bytes))


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
