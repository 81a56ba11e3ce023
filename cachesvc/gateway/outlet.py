"""The way out of one answer's body: onto the client's socket, by threads, past the event loop.

Story: aiohttp sends the head. From then on the body goes through a duplicate of the connection's
descriptor, which was made before, so that whoever gets a head gets a body: a thread reads up to
CHUNK_BYTES of a block file into its own buffer, holds the pages to their checksums, and sends them,
as far as the socket takes it; then the loop waits until the socket takes more. Pages that were
found right a moment ago and are still in memory are sent by the kernel, straight from the file
(vouched.py), all but the last of a file.

Rules
- HTTP clients check nothing, so no page of a file leaves that was not checked here.
- What the kernel sends is the file's until it has left: before the file's last page, which goes by
  way of memory, it must be what it was, or the connection ends.
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
from dataclasses import dataclass
from enum import Enum
from functools import partial
from threading import local
from typing import NamedTuple, TypeVar

from cachesvc.answer import FilePart, Segment, right
from cachesvc.aside import let_go
from cachesvc.disk.base import FILE_ERRORS, FileState
from cachesvc.pins import Pin

THREADS = 4
CHUNK_BYTES = 512 << 10
STALL_S = 60.0
_UNSENT_BYTES = 512 << 10  # what waits in the kernel; see docs/decisions/0016
TURN_BYTES = 8 << 20  # sent to one client before the others have their turn
_SHORT_BYTES = 16 << 10  # does not leave alone
# How long a thread waits for a full socket before it leaves that to the loop: not at all where
# others wait for the thread, or slow clients would share the few threads.
_PATIENCE_MS = 5

T = TypeVar("T")
Broken = Callable[[Pin, OSError], None]


class _Stopped(Enum):
    FULL = 1  # the socket takes nothing more now
    TURN = 2  # it is the others' turn
    WRONG = 3  # the next bytes are not what their checksums say


_Turn = tuple[int, _Stopped | None]


class _Piece(NamedTuple):
    """Checked bytes. push: sends from so many on, as the socket takes them; how many it took. pin:
    of the file that they are sent from.
    """

    length_bytes: int
    push: Callable[[socket.socket, int], int]
    pin: Pin | None = None


@dataclass(slots=True)
class _Lent:
    """What the kernel was given to send from a file in that state: bytes `[start, end)` of the
    object, whole pages of the segment.
    """

    segment: Segment
    state: FileState
    start: int
    end: int


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

    @property
    def crowded(self) -> bool:
        """Whether there is work that no thread has time for."""
        return not self._executor._work_queue.empty()

    def buffer(self) -> memoryview:
        """The calling thread's own."""
        view: memoryview | None = getattr(self._own, "view", None)
        if view is None:
            view = self._own.view = memoryview(bytearray(CHUNK_BYTES))
        return view

    def close(self) -> None:
        self._executor.shutdown()


class Outlet:
    """The socket of one answer, from before its head is sent until `close`.

    broken: told of a block file that cannot be read. reached: up to where in the object bytes have
    left.
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
        self.reached = -1
        self._lent: _Lent | None = None
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
        self.reached, stopped = self._push(segment, position, more=more)
        return self.reached, stopped

    def _push(self, segment: Segment, position: int, *, more: bool) -> _Turn:
        turn_end = position + TURN_BYTES
        part_start = segment.start
        for part in segment.parts:
            part_end = part_start + (part.length_bytes if isinstance(part, FilePart) else len(part))
            while position < part_end:
                if position >= turn_end:
                    return position, _Stopped.TURN
                if isinstance(part, FilePart):
                    piece = self._piece(segment, part, part_start, position)
                    if piece is None:
                        return position, _Stopped.WRONG
                else:
                    piece = _memory(part[position - part_start :], more=more)
                sent, stopped = self._send(piece)
                position += sent
                if stopped is _Stopped.WRONG and isinstance(part, FilePart):
                    self._examine(segment, part, part_start)
                if stopped is not None:
                    return position, stopped
            part_start = part_end
        return position, None

    def _piece(
        self, segment: Segment, part: FilePart, part_start: int, position: int
    ) -> _Piece | None:
        """The next bytes of a file, their whole pages checked; None if they are wrong."""
        page_bytes, pin = self._page_bytes, part.pin
        at = part.offset - part_start  # of the object's first byte, in the file
        start = max(part_start, position // page_bytes * page_bytes)
        part_end = part_start + part.length_bytes
        last_page = (part_end - 1) // page_bytes * page_bytes
        try:
            if position < last_page:
                end = min(last_page, start + TURN_BYTES)
                if self._vouched(segment, pin, at, start, end):
                    return _of_file(pin, at + position, end - position)
            end = min(part_end, start + CHUNK_BYTES)
            state = pin.held.file.state()
            self._still(segment, pin, at, state)
            data = self._threads.buffer()[: end - start]
            if pin.readinto(data, at + start) < len(data):
                raise OSError(errno.ENODATA, "the block file was cut short")
            sums = segment.checksums_of(start, end, page_bytes)
            if not right(data, start, sums, page_bytes):
                return None
            if sums:
                pages = _bitmap(at + start, at + end, page_bytes)
                pin.held.vouched.note(pin.held.file, state, pages)
        except ConnectionError:
            raise
        except OSError as error:
            self._broken(pin, error)
            return None
        return _memory(data[position - start :], more=False)

    def _examine(self, segment: Segment, part: FilePart, part_start: int) -> None:
        """The file failed while it was sent: what the kernel was given of it must still be there.

        Raises: ConnectionAbortedError.
        """
        try:
            self._still(segment, part.pin, part.offset - part_start, None)
        except ConnectionError:
            raise
        except OSError as error:
            raise ConnectionAbortedError("a block file failed while it was being sent") from error

    def _vouched(self, segment: Segment, pin: Pin, at: int, start: int, end: int) -> bool:
        """Whether the kernel may send these bytes of the object from the file, unchecked."""
        opened, pages = pin.held, _bitmap(at + start, at + end, self._page_bytes)
        state = opened.vouched.holds(opened.file, pages, at + start, at + end)
        if state is None:
            return False
        self._still(segment, pin, at, state)
        if self._lent is not None and self._lent.segment is segment:
            self._lent.end = end
        else:
            self._lent = _Lent(segment, state, start, end)
        return True

    def _still(self, segment: Segment, pin: Pin, at: int, state: FileState | None) -> None:
        """The file is in this state, None if that is not known. If it may have been written since
        the kernel was given bytes of it, these must be what they were: the node only adds pages.

        Raises: ConnectionAbortedError, they are not, so the client may have others. OSError.
        """
        lent = self._lent
        if lent is None or lent.segment is not segment or lent.state == state:
            return
        for start in range(lent.start, lent.end, CHUNK_BYTES):
            end = min(lent.end, start + CHUNK_BYTES)
            data = self._threads.buffer()[: end - start]
            whole = pin.readinto(data, at + start) == len(data)
            sums = segment.checksums_of(start, end, self._page_bytes)
            if not whole or not right(data, start, sums, self._page_bytes):
                raise ConnectionAbortedError("a block file was written while it was being sent")
        if state is not None:
            lent.state = state

    def _send(self, piece: _Piece) -> _Turn:
        """How many of the bytes the socket took, within a moment, and why not all."""
        sent = 0
        while sent < piece.length_bytes:
            try:
                count = piece.push(self._socket, sent)
            except BlockingIOError:
                if self._threads.crowded or not self._takes_more():
                    return sent, _Stopped.FULL
            except OSError as error:
                if piece.pin is None or error.errno not in FILE_ERRORS:
                    raise
                self._broken(piece.pin, error)
                return sent, _Stopped.WRONG
            else:
                sent += count
        return sent, None

    def _takes_more(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(_PATIENCE_MS))


def _memory(data: memoryview, *, more: bool) -> _Piece:
    flags = socket.MSG_MORE if more and len(data) < _SHORT_BYTES else 0
    return _Piece(len(data), lambda out, sent: out.send(data[sent:], flags))


def _of_file(pin: Pin, offset: int, length_bytes: int) -> _Piece:
    def push(out: socket.socket, sent: int) -> int:
        count = os.sendfile(out.fileno(), pin.fileno(), offset + sent, length_bytes - sent)
        if count == 0:
            raise OSError(errno.ENODATA, "the block file was cut short")
        return count

    return _Piece(length_bytes, push, pin)


def _bitmap(start: int, end: int, page_bytes: int) -> int:
    """The pages that bytes `[start, end)` of a block lie in."""
    first, beyond = start // page_bytes, -(-end // page_bytes)
    return ((1 << (beyond - first)) - 1) << first
