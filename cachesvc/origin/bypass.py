"""Reading from S3 without storing: one GET through aiobotocore, its length held to what was
promised.

Rules: the chunks are exactly the range cut to the object's end, or an OriginError: never a short
answer. S3 has no empty ranges (it answers 416), so those are answered by a HEAD.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

from cachesvc.core.errors import OriginError, RangeError
from cachesvc.core.promise import promised
from cachesvc.core.request import LEAST_BYTES_PER_S
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion, clamp
from cachesvc.origin import blame
from cachesvc.origin.base import BypassStream

CHUNK_BYTES = 256 << 10
PATIENCE_S = 10.0  # of waiting for a body, beyond what LEAST_BYTES_PER_S allows

Head = Callable[[ObjectName], Awaitable[ObjectVersion]]
Get = Callable[[str | None], Awaitable[dict[str, Any]]]


class NotSatisfiable(Exception):
    """S3 answered 416: nothing of the range lies within the object."""


def version_of(name: ObjectName, answer: dict[str, Any], size_bytes: int | None) -> ObjectVersion:
    """The version that an answer or an entry of a listing speaks of. Raises OriginError if it makes
    no sense.
    """
    modified = answer.get("LastModified")
    modified_ms = int(modified.timestamp() * 1000) if isinstance(modified, datetime) else 0
    try:
        if size_bytes is None:
            raise ValueError(f"{name}: the answer has no size")
        return ObjectVersion(name, answer.get("ETag") or "", size_bytes, modified_ms)
    except ValueError as error:
        raise OriginError(f"the origin's answer makes no sense: {error}") from error


class Body:
    """The body of one answer of aiobotocore, counted."""

    def __init__(self, name: ObjectName, wanted: ByteRange, body: Any) -> None:
        self._name = name
        self._wanted = wanted
        self._body = body
        self.received_bytes = 0
        self._waited_s = 0.0

    async def chunks(self) -> AsyncIterator[bytes]:
        wanted_bytes = self._wanted.length_bytes
        while self.received_bytes < wanted_bytes:
            asked_s = time.monotonic()
            try:
                chunk: bytes = await self._body.read(CHUNK_BYTES)
            except blame.CALL_ERRORS as error:
                raise self._short(blame.cause(error)) from error
            self._waited_s += time.monotonic() - asked_s  # the reader's own slowness is not in it
            if self._waited_s > PATIENCE_S + self.received_bytes / LEAST_BYTES_PER_S:
                raise self._short(f"it sends fewer than {LEAST_BYTES_PER_S} bytes/s")
            if not chunk:
                raise self._short("the connection was cut")
            self.received_bytes += len(chunk)
            if self.received_bytes > wanted_bytes:
                raise self._short("more bytes came than were promised")
            yield chunk

    def _short(self, why: str) -> OriginError:
        return OriginError(
            f"{self._name}: {self.received_bytes} of {self._wanted.length_bytes} bytes came from"
            f" the origin: {why}"
        )

    def close(self) -> None:
        """Hang up, unless the body was read whole."""
        self._body.close()


async def open_stream(
    head: Head, get: Get, name: ObjectName, start: int, end: int | None
) -> tuple[BypassStream, Body | None]:
    """A stream of `[start, end)` cut to the object's end; no body where there is nothing to get."""
    clamp(name, start, end, start)
    if end == start:
        return await _empty(head, name, start, end), None
    http_range = None
    if start or end is not None:
        http_range = f"bytes={start}-{'' if end is None else end - 1}"
    try:
        answer = await get(http_range)
    except NotSatisfiable as error:
        empty = await _empty(head, name, start, end)
        if empty.wanted.length_bytes:
            raise OriginError(
                f"{name}: the origin has {empty.version.size_bytes} bytes but none of"
                f" {http_range}: the object is being overwritten; try again"
            ) from error
        return empty, None
    try:
        version, wanted = _promised(name, answer, start, end)
    except BaseException:
        answer["Body"].close()
        raise
    body = Body(name, wanted, answer["Body"])
    return BypassStream(version, wanted, body.chunks()), body


def _promised(
    name: ObjectName, answer: dict[str, Any], start: int, end: int | None
) -> tuple[ObjectVersion, ByteRange]:
    """The version and range that an answer promises. Raises OriginError if they are not those asked
    for.
    """
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    told, length_bytes = answer.get("ContentRange"), answer.get("ContentLength")
    try:
        size_bytes, wanted = promised(name, (start, end), status, told, length_bytes)
    except RangeError:
        raise
    except ValueError as error:
        raise OriginError(str(error)) from error
    return version_of(name, answer, size_bytes), wanted


async def _empty(head: Head, name: ObjectName, start: int, end: int | None) -> BypassStream:
    version = await head(name)
    return BypassStream(version, clamp(name, start, end, version.size_bytes), _nothing())


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk
