"""The way out of one answer's body: onto the client's socket, by threads, past the event loop.

Story: aiohttp has sent the head. From then on the body goes through a duplicate of the connection's
descriptor: a thread reads up to CHUNK_BYTES of a block file into its own buffer, holds the pages to
their checksums, and sends them, as far as the socket takes it; then the loop waits until the socket
takes more.

Rules
- HTTP clients check nothing, so every page of a file is checked here before it is sent.
- A slow client holds a pin and a position, no buffer and no thread: what a full socket refused is
  read and checked again when it is the client's turn.
- A client that takes nothing for STALL_S is hung up on.
- No thread touches the descriptor any more once `send` has returned or raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from functools import partial
from threading import local
from typing import TypeVar

from cachesvc.answer import FilePart, Segment, right
from cachesvc.aside import let_go
from cachesvc.pins import Pin

THREADS = 4
CHUNK_BYTES = 512 << 10
STALL_S = 60.0
_UNSENT_BYTES = 512 << 10  # what waits in the kernel; see docs/decisions/0016
_TURN_BYTES = 8 << 20  # sent to one client before the others have their turn
_SHORT_BYTES = 16 << 10  # does not leave alone
_PATIENCE_MS = 5  # how long a thread waits for a full socket before it leaves that to the loop

T = TypeVar("T")
Broken = Callable[[Pin, OSError], None]


class _Stopped(Enum):
    FULL = 1  # the socket takes nothing more now
    TURN = 2  # it is the others' turn
    WRONG = 3  # the next bytes are not what their checksums say


_Turn = tuple[int, _Stopped | None]


class SendThreads:
    """The threads that send, each with a buffer of its own."""

    def __init__(self, thread_count: int = THREADS) -> None:
        self._executor = ThreadPoolExecutor(thread_count, thread_name_prefix="s3-send")
        self._own = local()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have a thread do it, soon."""
        return self._executor.submit(work)

    async def run(self, work: Callable[[], _Turn]) -> _Turn:
        """What the work returns. Cancelled, also again: not before the thread is done with it."""
        future = self._executor.submit(work)
        await let_go(future, stop=lambda: None)  # a turn ends by itself, soon
        return future.result()

    def buffer(self) -> memoryview:
        """The calling thread's own."""
        view: memoryview | None = getattr(self._own, "view", None)
        if view is None:
            view = self._own.view = memoryview(bytearray(CHUNK_BYTES))
        return view

    def close(self) -> None:
        self._executor.shutdown()


class Outlet:
    """The socket of one answer, from when the head has been sent until `close`.

    broken: told of a block file that cannot be read.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        threads: SendThreads,
        page_bytes: int,
        broken: Broken,
        stall_s: float = STALL_S,
    ) -> None:
        self._transport = transport
        self._threads = threads
        self._page_bytes = page_bytes
        self._broken = broken
        self._stall_s = stall_s
        theirs = transport.get_extra_info("socket")
        self._socket = socket.socket(fileno=os.dup(theirs.fileno()))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)

    def close(self) -> None:
        self._socket.close()

    def cut(self) -> None:
        """End the connection: whoever sends through it fails soon."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    async def send(self, segment: Segment, position: int) -> int:
        """Send the segment from a position in the object on; where there the sending ended: before
        its end only if what comes next fails its checksum or cannot be read.

        Raises: ConnectionError, the client is gone or takes nothing.
        """
        end = segment.start + segment.length_bytes
        while position < end:
            position, stopped = await self._threads.run(partial(self.push, segment, position))
            if stopped is _Stopped.WRONG:
                break
            if stopped is _Stopped.FULL:
                await self._writable()
        return position

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._socket, ready.set)
        try:
            async with asyncio.timeout(self._stall_s):
                await ready.wait()
        except TimeoutError as error:
            raise ConnectionAbortedError(
                f"a client took nothing for {self._stall_s:g} s"
            ) from error
        finally:
            loop.remove_writer(self._socket)

    # -- on a thread

    def push(self, segment: Segment, position: int, *, more: bool = False) -> _Turn:
        """Send from `position` on; where it ended, and why before the segment's end. more: another
        segment follows at once.
        """
        turn_end = position + _TURN_BYTES
        part_start = segment.start
        for part in segment.parts:
            part_end = part_start + (part.length_bytes if isinstance(part, FilePart) else len(part))
            while position < part_end:
                if position >= turn_end:
                    return position, _Stopped.TURN
                if isinstance(part, FilePart):
                    data = self._checked(segment, part, part_start, position)
                    if data is None:
                        return position, _Stopped.WRONG
                else:
                    data = part[position - part_start :]
                flags = socket.MSG_MORE if more and len(data) < _SHORT_BYTES else 0
                sent = self._send(data, flags)
                position += sent
                if sent < len(data):
                    return position, _Stopped.FULL
            part_start = part_end
        return position, None

    def _checked(
        self, segment: Segment, part: FilePart, part_start: int, position: int
    ) -> memoryview | None:
        """The next bytes of a file, their whole pages checked; None if they are wrong."""
        page_bytes = self._page_bytes
        start = max(part_start, position // page_bytes * page_bytes)
        end = min(part_start + part.length_bytes, start + CHUNK_BYTES)
        data = self._threads.buffer()[: end - start]
        try:
            if part.pin.readinto(data, part.offset + start - part_start) < len(data):
                raise OSError(errno.ENODATA, "the block file was cut short")
        except OSError as error:
            self._broken(part.pin, error)
            return None
        sums = segment.checksums_of(start, end, page_bytes)
        return data[position - start :] if right(data, start, sums, page_bytes) else None

    def _send(self, data: memoryview, flags: int) -> int:
        """How many of the bytes the socket took, within a moment."""
        sent = 0
        while sent < len(data):
            try:
                sent += self._socket.send(data[sent:], flags)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._socket, select.POLLOUT)
                if not poll.poll(_PATIENCE_MS):
                    break
        return sent
