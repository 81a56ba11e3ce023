"""One client's connection: aiohttp's, with a shorter way for hits.

Story: what arrives while nothing is being answered and is one plain request goes to `Hits` first.
A hit is written from here: small ones at once, others by a sending thread on the connection's own
descriptor, and only what a slow client left over costs a task. All else is aiohttp's.

Rules
- One answer at a time, in order: what comes meanwhile is held back, up to MAX_HELD_BYTES, then the
  client is no longer read from.
- aiohttp is asked whether it is at rest by what it keeps for itself (`_waiter`, `_messages`), of
  the version that constraints.txt names; a test says so, should that change.
- An answer that cannot be sent whole ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import structlog
from aiohttp.web import BaseRequest, Response, Server, StreamResponse
from aiohttp.web_protocol import RequestHandler

from cachesvc.answer import Segment
from cachesvc.core.errors import CacheError
from cachesvc.core.types import Source
from cachesvc.gateway.hits import Hit, Hits
from cachesvc.gateway.outlet import Outlet
from cachesvc.gateway.plain import plain
from cachesvc.gateway.sending import Sending, small_body

MAX_HELD_BYTES = 64 << 10
MAX_REASON_CHARS = 200
_CUT_AGAIN_S = 0.1  # what was with a thread may have become a task

log = structlog.get_logger(__name__)
Count = Callable[[str, str], None]
Malformed = Callable[[BaseRequest, int, str], Response]


class Connections(Server):
    """All connections of a gateway. count: told of every hit, its operation and status. roomy:
    whether one more may be sent. malformed: the answer to what is no request, by status and reason.
    """

    def __init__(
        self,
        handler: Any,
        hits: Hits,
        sending: Sending,
        count: Count,
        roomy: Callable[[], bool],
        malformed: Malformed,
        *,
        keep_idle_s: float,
        **settings: Any,
    ) -> None:
        super().__init__(handler, keepalive_timeout=keep_idle_s, **settings)
        self.hits = hits
        self.sending = sending
        self.count = count
        self.roomy = roomy
        self.malformed = malformed
        self.keep_idle_s = keep_idle_s
        self.busy: dict[Connection, asyncio.Future[None]] = {}

    def __call__(self) -> RequestHandler:
        return Connection(self)

    async def end(self, grace_s: float) -> None:
        """Let hits that are being sent end, `grace_s` at most."""
        if self.busy:
            await asyncio.wait(self.busy.values(), timeout=grace_s)
        while self.busy:
            for connection in self.busy:
                connection.cut()
            await asyncio.wait(self.busy.values(), timeout=_CUT_AGAIN_S)


class Connection(RequestHandler):
    """See above."""

    __slots__ = ("_all", "_held", "_hit", "_outlet", "_segments", "_sure", "_task")

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections, loop=connections._loop, **connections._kwargs)
        self._all = connections
        self._held = bytearray()
        self._hit: Hit | None = None
        self._outlet: Outlet | None = None
        self._segments: list[Segment] = []  # the head first
        self._task: asyncio.Task[None] | None = None
        self._sure = True  # aiohttp has no part of a request

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._hit is not None:
            self._hold(data)
            return
        if self._at_rest() and (request := plain(data)) is not None:
            hit = self._all.hits.find(request)
            if hit is not None and self._answer(hit):
                return
        self._sure = data.endswith(b"\r\n\r\n")
        super().data_received(data)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """aiohttp's, for what it cannot read. It would tell the log of each with a traceback, and
        anybody can send such.
        """
        if status == 500 or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        why = (message or str(exc)).partition("\n")[0].rstrip(": ")[:MAX_REASON_CHARS]
        log.debug("a malformed request", why=why)
        response = self._all.malformed(request, status, _printable(why))
        response.force_close()
        return response

    def _at_rest(self) -> bool:
        waiter, transport = self._waiter, self.transport
        return (
            self._sure
            and waiter is not None
            and not waiter.done()
            and not self._messages
            and not (self._close or self._force_close)
            and transport is not None
            and not transport.get_write_buffer_size()
            and self._all.roomy()
        )

    def _process_keepalive(self) -> None:
        """aiohttp's: it hangs up on who has been idle for long. Who is sent a hit is not."""
        if self._hit is not None:
            self._next_keepalive_close_time = self._loop.time() + self._all.keep_idle_s
        super()._process_keepalive()

    def _answer(self, hit: Hit) -> bool:
        """Send it; False: there is no descriptor for that, ask the common way."""
        assert self.transport is not None, "at rest"
        self._next_keepalive_close_time = self._loop.time() + self._all.keep_idle_s
        if hit.body is None:
            self.transport.write(hit.head)
            self._all.count(hit.operation, str(hit.status))
            return True
        small = small_body(hit.body.segments)
        if small is not None:
            self.transport.write(hit.head + small)
            hit.body.close()
            self._all.count(hit.operation, str(hit.status))
            return True
        try:
            self._outlet = self._all.sending.outlet(self.transport)
        except OSError:
            hit.body.close()
            return False
        self._hit = hit
        self._all.busy[self] = self._loop.create_future()
        self._segments = [_of_memory(hit.head), *hit.body.segments]
        self._all.sending.push(self._outlet, self._segments).add_done_callback(self._hop)
        return True

    def _hop(self, pushed: Future[tuple[int, int]]) -> None:
        """On the sending thread."""
        self._loop.call_soon_threadsafe(self._pushed, pushed)

    def _pushed(self, pushed: Future[tuple[int, int]]) -> None:
        """A thread has sent what the client took at once."""
        error = pushed.exception()
        if error is not None:
            self._sent(error)
            return
        sent_count, position = pushed.result()
        if sent_count == len(self._segments):
            self._sent(None)
            return
        self._task = self._loop.create_task(self._rest(sent_count, position))
        self._task.add_done_callback(self._rested)

    async def _rest(self, sent_count: int, position: int) -> None:
        assert self._outlet is not None, "it is being sent"
        assert self._hit is not None, "it is being sent"
        first, version = self._segments[sent_count], self._hit.version
        await self._all.sending.segment(self._outlet, version, first, position)
        for segment in self._segments[sent_count + 1 :]:
            await self._all.sending.segment(self._outlet, version, segment, segment.start)

    def _rested(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._sent(ConnectionAbortedError() if task.cancelled() else task.exception())

    def _sent(self, error: BaseException | None) -> None:
        """It is over; error: before its end."""
        if error is not None and not isinstance(error, CacheError | OSError):
            log.error("a hit broke", why=repr(error))
        elif error is not None and not isinstance(error, BrokenPipeError | ConnectionResetError):
            log.info("a connection ended in mid-answer", why=str(error))
        hit, self._hit = self._hit, None
        outlet, self._outlet = self._outlet, None
        assert hit is not None, "it was being sent"
        assert hit.body is not None, "by a thread"
        assert outlet is not None, "by a thread"
        outlet.close()
        hit.body.close()
        self._segments = []
        self._all.count(hit.operation, str(hit.status) if error is None else "sent")
        self._all.busy.pop(self).set_result(None)
        if self.transport is None:
            return
        if error is not None:
            self.transport.abort()
            return
        self._next_keepalive_close_time = self._loop.time() + self._all.keep_idle_s
        if self._held:
            held, self._held = bytes(self._held), bytearray()
            self.transport.resume_reading()
            self.data_received(held)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MAX_HELD_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def cut(self) -> None:
        """Hang up on a client that is being sent a hit."""
        if self._outlet is not None:
            self._outlet.cut()
        if self._task is not None:
            self._task.cancel()  # it may wait for the origin


def _of_memory(data: bytes) -> Segment:
    return Segment(0, len(data), Source.DISK, parts=[memoryview(data)])


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)
