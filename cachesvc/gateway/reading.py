"""GetObject and HeadObject from the cache: which head, and which bytes behind it.

Story: the version and its fields are looked up (of an object that nobody here knows, with the first
bytes: cold.py), conditions and range decide on the head. Then the bytes: what is stored is taken at
once, what is not is filled; only with the first bytes in hand is the head sent, so that an object
that changed meanwhile is looked up again and nobody notices. A large object is read in windows, all
of the same version.

Rules
- One answer, one version. What fails behind the head ends the connection: never a short answer.
- No object is held in memory, and every byte is checked: see sending and outlet.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from functools import partial

import structlog
from aiohttp.web import BaseRequest, RequestKey, Response, StreamResponse

from cachesvc.answer import Answer, Segment, take
from cachesvc.aside import on_a_thread
from cachesvc.core.errors import CacheError, NotCacheable, ObjectChanged
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.gateway.cold import ColdReads, any_stored
from cachesvc.gateway.head import Head, head_of, needs_checksums
from cachesvc.gateway.lookup import Found, Lookup
from cachesvc.gateway.outlet import Outlet
from cachesvc.gateway.sending import Sending, range_of, small_body
from cachesvc.reader import Reader
from cachesvc.store import Store

WINDOW_BYTES = 128 << 20  # read at a time, all its blocks at once
CHANGED_TRIES = 3
SENT_STATUS = RequestKey("SENT_STATUS", int)  # the answer's, once all of it has left; else 0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Look:
    """What of a window is stored: all of it (`hit`), or some."""

    hit: Answer | None
    some: bool = field(default=False)

    def close(self) -> None:
        if self.hit is not None:
            self.hit.close()


class Reading:
    """GETs and HEADs of objects on one node. stamp: fields that every answer carries."""

    def __init__(
        self,
        reader: Reader,
        store: Store,
        lookup: Lookup,
        sending: Sending,
        stamp: Mapping[str, str],
    ) -> None:
        self._reader = reader
        self._store = store
        self._lookup = lookup
        self._cold = ColdReads(reader, store, lookup)
        self._sending = sending
        self._stamp = dict(stamp)

    async def answer(
        self, request: BaseRequest, name: ObjectName, request_id: str
    ) -> StreamResponse:
        """The answer, sent or ready to be sent.

        Raises: S3Error, and CacheErrors, before anything was sent; NotCacheable: this object is
        the origin's own affair. ConnectionError: something failed behind the head, hang up.
        """
        checksums = needs_checksums(request.headers, request.query)
        found = self._lookup.known(name, checksums=checksums)
        if found is None and not checksums:
            response = await self._first(request, name, request_id)
            if response is not None:
                return response
        for last in [False] * (CHANGED_TRIES - 1) + [True]:
            found = found or await self._lookup.find(name, checksums=checksums)
            if not found.version.cacheable:
                raise NotCacheable(f"{name}: ETag {found.version.etag!r} is not strong")
            head = self._head(request, found, request_id, checksums=checksums)
            if head.body is None or request.method == "HEAD" or not head.body.length_bytes:
                return self._bodiless(head)
            try:
                return await self._get(request, head, head.body)
            except ObjectChanged:
                self._reader.versions.forget(found.version)
                found = None
                if last:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _first(
        self, request: BaseRequest, name: ObjectName, request_id: str
    ) -> StreamResponse | None:
        """The answer for an unknown object, begun without a version; None: ask for that first."""
        async with self._cold.open(request, name, WINDOW_BYTES) as opened:
            if opened is None:
                return None
            head = self._head(request, opened.found, request_id, checksums=False)
            assert head.body is not None, "it asks without a condition"
            if not head.body.length_bytes:
                return self._bodiless(head)
            head.fields["X-Cache"] = "PARTIAL" if opened.some else "MISS"
            try:
                return await self._deliver(request, head, head.body, opened.answer)
            except ObjectChanged:
                return None

    def _head(
        self, request: BaseRequest, found: Found, request_id: str, *, checksums: bool
    ) -> Head:
        head = head_of(request.headers, found, checksums=checksums)
        head.fields.update(self._stamp)
        head.fields["x-amz-request-id"] = request_id
        return head

    def _bodiless(self, head: Head) -> StreamResponse:
        response = StreamResponse(status=head.status, headers=head.fields)
        response.headers["X-Cache"] = "HIT"
        if head.body is not None:
            response.content_length = head.body.length_bytes
        return response

    async def _get(self, request: BaseRequest, head: Head, body: ByteRange) -> StreamResponse:
        window = ByteRange(body.start, min(body.end, body.start + WINDOW_BYTES))
        look = await self._look(head.version, window)
        answer = look.hit or await self._reader.read(range_of(head.version, window))
        head.fields["X-Cache"] = (
            "HIT" if look.hit is not None else "PARTIAL" if look.some else "MISS"
        )
        async with aclosing(answer):
            return await self._deliver(request, head, body, answer)

    async def _deliver(
        self, request: BaseRequest, head: Head, body: ByteRange, answer: Answer
    ) -> StreamResponse:
        """What the answer for the first window brings, and everything behind it."""
        first = await take(answer)
        assert first is not None, "a window holds bytes"
        with closing(first):
            data = small_body([first]) if first.length_bytes == body.length_bytes else None
            if data is not None:
                assert await take(answer) is None, "the window holds no more"
                return Response(status=head.status, headers=head.fields, body=data)
            return await self._send(request, head, body, answer, first)

    async def _look(self, version: ObjectVersion, window: ByteRange) -> _Look:
        """At once, or, where a disk has to be asked, on a thread."""
        hit = self._reader.hit(range_of(version, window), wait=False)
        if hit is not None:
            return _Look(hit, True)
        look = await on_a_thread(partial(self._look_on_disk, version, window))
        assert look is not None
        return look

    def _look_on_disk(self, version: ObjectVersion, window: ByteRange) -> _Look:
        hit = self._reader.hit(range_of(version, window))
        if hit is not None:
            return _Look(hit, True)
        return _Look(None, any_stored(self._store, version, window, self._reader.geometry))

    async def _send(
        self, request: BaseRequest, head: Head, body: ByteRange, answer: Answer, first: Segment
    ) -> StreamResponse:
        """The head, then everything behind it. Raises ConnectionError if that fails; Overloaded
        before anything is sent.
        """
        response = StreamResponse(status=head.status, headers=head.fields)
        response.content_length = body.length_bytes
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        with closing(self._sending.outlet(transport)) as outlet:
            transport.set_write_buffer_limits(0)
            writer = await response.prepare(request)
            assert writer is not None
            writer.send_headers()
            while transport.get_write_buffer_size():
                await writer.drain()
            try:
                await self._sending.segment(outlet, head.version, first, first.start)
                await self._sending.rest(outlet, head.version, answer)
                for start in range(body.start + WINDOW_BYTES, body.end, WINDOW_BYTES):
                    window = ByteRange(start, min(body.end, start + WINDOW_BYTES))
                    await self._send_window(outlet, head.version, window)
            except CacheError as error:
                log.warning("an answer was cut short", name=str(head.version.name), why=str(error))
                raise ConnectionAbortedError(str(error)) from error
            finally:  # who has all of it may have hung up before this is known here
                request[SENT_STATUS] = head.status if outlet.reached == body.end else 0
        return response

    async def _send_window(self, outlet: Outlet, version: ObjectVersion, window: ByteRange) -> None:
        look = await self._look(version, window)
        answer = look.hit or await self._reader.read(range_of(version, window))
        async with aclosing(answer):
            await self._sending.rest(outlet, version, answer)
