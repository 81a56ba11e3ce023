"""The first GET of an object of which the node knows nothing: one GET of the origin and no HEAD.

Story: elsewhere the version is asked for before the bytes. Here the first window is read without
one, so that the reader begins with a probe (prober.py), whose answer's head tells version and
header fields, and whose body is the first extent.

Rules
- Only where one GET is sure to do for both: a GET from within block 0, without a condition, that
  needs no checksums. Everything else, and what turns out odd, goes the way by HEAD.
- What was opened is closed with the context, whatever happens within.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass

from aiohttp.web import BaseRequest

from cachesvc.answer import Answer
from cachesvc.core.blocks import slices
from cachesvc.core.errors import RangeError
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ByteRange, Geometry, ObjectName, ObjectVersion
from cachesvc.gateway.lookup import Found, Lookup
from cachesvc.gateway.ranges import asked_range
from cachesvc.reader import Reader
from cachesvc.store import Store
from cachesvc.versions import Checked

_CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range")


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found, and the answer for its first window. some: of that, something was stored."""

    found: Found
    answer: Answer
    some: bool


class ColdReads:
    """GETs of unknown objects on one node. Event loop only."""

    def __init__(self, reader: Reader, store: Store, lookup: Lookup) -> None:
        self._reader = reader
        self._store = store
        self._lookup = lookup

    @asynccontextmanager
    async def open(
        self, request: BaseRequest, name: ObjectName, window_bytes: int
    ) -> AsyncIterator[Opened | None]:
        """The object's first `window_bytes` of what the request asks for, at most; None: ask for
        the version first.

        Raises: ObjectNotFound, AccessDenied, OriginError, Overloaded.
        """
        window = self._window(request, window_bytes)
        answer = None
        if window is not None and self._reader.unknown(name):
            with suppress(RangeError):
                answer = await self._reader.read(ReadRequest(name, (window,)))
        if window is None or answer is None:
            yield None
        else:
            async with aclosing(answer):
                yield await self._opened(answer, window[1])

    async def _opened(self, answer: Answer, end: int) -> Opened | None:
        version = answer.version
        if not version.cacheable:
            return None
        fields = await self._lookup.fields(Checked(version, answer.checked_at))
        if fields is None:
            return None
        return Opened(Found(version, fields), answer, await self._some(version, end))

    def _window(self, request: BaseRequest, window_bytes: int) -> tuple[int, int] | None:
        """`[start, end)` of what the request wants first, of an object of any size."""
        headers = request.headers
        if request.method != "GET" or any(one in headers for one in _CONDITIONS):
            return None
        start, end = asked_range(headers.get("Range")) or (0, None)
        if start is None or start >= self._reader.geometry.block_bytes:
            return None
        beyond = start + window_bytes
        return start, beyond if end is None else min(end, beyond)

    async def _some(self, version: ObjectVersion, end: int) -> bool:
        """Whether something before `end` is stored: not of block 0, which was not here."""
        geometry = self._reader.geometry
        end = min(end, version.size_bytes)
        if end <= geometry.block_bytes:
            return False
        span = ByteRange(geometry.block_bytes, end)
        return await asyncio.to_thread(any_stored, self._store, version, span, geometry)


def any_stored(store: Store, version: ObjectVersion, span: ByteRange, geometry: Geometry) -> bool:
    """Whether any page of the span is stored. May wait for a disk."""
    parts = slices(version, span, geometry)
    return any(store.present(part.block) & part.pages for part in parts)
