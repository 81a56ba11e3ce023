"""The threads of a framed lane: sockets, epoll, and sending without ever waiting for one client.

Story: lane threads own the connections, one epoll each; the first accepts, the server deals them
out. A thread reads requests, hands each to its handler, and sends what comes back: memory by send,
parts of block files by sendfile, whole files as descriptors, as far as the socket takes it now.

Rules: a connection is touched by its own thread only (`post` brings work there); one request at a
time, further ones wait unread; a slow client holds what it was promised, and no thread.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock, Thread
from typing import Protocol

import structlog

from cachesvc import passing
from cachesvc.answer import FilePart
from cachesvc.core.errors import CacheError, NodeUnavailable
from cachesvc.disk.base import FILE_ERRORS
from cachesvc.lane_connection import Connection, Done, Outgoing
from cachesvc.lane_sending import Item, push
from cachesvc.pins import Pin
from cachesvc.wire.frame import Kind

MAX_UNREAD_BYTES = 256 << 10  # of requests that wait behind the one being answered
STALL_S = 60.0  # a client that takes nothing for so long is hung up on
HELLO_S = 5.0  # who has not said Hello by then is hung up on
QUIET_S = 0.02  # after which there is time for what does not press (decision 14)
SWEEP_INTERVAL_S = 1.0  # between two looks for clients that stand still
COMPLAINT_INTERVAL_S = 5.0  # between two log lines about connections that cannot be accepted
CONVERSATION_S = 0.002  # that a thread looks for nothing but its only client's requests
PAUSE_S = 0.004  # after which a client no longer asks all the time
_NOW = int(socket.MSG_DONTWAIT)
_FIRST_BYTES = 479  # of a request, at first: what is no larger is a small object of the interpreter
_RECV_BYTES = 16 << 10  # at once; of more, the rest comes next time
_TURN_BYTES = 1 << 20  # sent to one client before the others have their turn

log = structlog.get_logger(__name__)


class Handler(Protocol):
    """Who answers. Called on lane threads."""

    def deal(self, sock: socket.socket) -> None:
        """A client connected: give it to a thread."""

    def serve(self, connection: Connection, kind: Kind, header: bytes) -> None:
        """A whole request. CacheError: the connection is beyond use."""

    def ready(self, request: bytes) -> bytes | None:
        """The answer to what came, to be sent at once, if it is one request for little; None: try
        `at_once`.
        """

    def sent(self) -> None:
        """What was ready was sent, as far as it could be."""

    def at_once(self, connection: Connection, request: bytes) -> bool:
        """Answer what came, if it is one request that can be answered now; False: serve it."""

    def reply(self, connection: Connection, answer: bytes | memoryview) -> None:
        """Send the rest of such an answer, then be ready for the next request."""

    def refuse(self, connection: Connection, error: CacheError) -> None:
        """Say why, then hang up."""

    def awaits_quiet(self) -> bool:
        """Whether there is something that is best done when a thread has nothing to do."""

    def quiet(self) -> None:
        """A thread has nothing to do, and had until just now: do it."""

    def broken(self, pin: Pin, error: OSError) -> None:
        """A block file could not be sent."""

    def closed(self, connection: Connection) -> None:
        """The client is gone."""


class LaneThread(Thread):
    """An epoll loop over its share of the connections."""

    def __init__(self, handler: Handler, number: int, stall_s: float = STALL_S) -> None:
        super().__init__(name=f"lane-{number}", daemon=True)
        self._handler = handler
        self._ready, self._sent = handler.ready, handler.sent
        self._stall_s = stall_s
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waking = Lock()
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._inbox: deque[Callable[[], None]] = deque()
        self._listeners: dict[int, socket.socket] = {}
        self._connections: dict[int, Connection] = {}
        self._swept_at = time.monotonic()
        self._complained_at = self._asked_at = float("-inf")
        self._stopping = False

    # -- from any thread

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def post(self, work: Callable[[], None]) -> None:
        """Have `work` done by this thread, soon; by nobody, once it has been stopped."""
        self._inbox.append(work)
        with self._waking:  # so that no number is written to that is another file's by then
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        """Hang up on everybody and end. Returns when the thread is gone."""
        self.post(self._end)
        self.join()

    # -- the loop

    def run(self) -> None:
        lately, poll, connection_of = False, self._epoll.poll, self._connections.get
        while not self._stopping:
            events = poll(QUIET_S if lately else SWEEP_INTERVAL_S)
            for fd, mask in events:
                try:
                    connection = connection_of(fd)
                    if connection is not None and mask == select.EPOLLIN:  # mostly
                        self._receive(connection)
                    else:
                        self._attend(fd, mask)
                    if self._inbox:
                        self._work()
                except Exception:
                    log.exception("a lane thread stumbled")
                    if fd in self._connections:
                        self.close(self._connections[fd])
            try:
                if lately and not events:
                    self._handler.quiet()
                if time.monotonic() - self._swept_at >= SWEEP_INTERVAL_S:
                    self._sweep()
            except Exception:
                log.exception("a lane thread stumbled between two turns")
            lately = bool(events) and self._handler.awaits_quiet()
        self._epoll.close()
        with self._waking:
            os.close(self._wake_fd)
            self._wake_fd = -1

    def _attend(self, fd: int, mask: int) -> None:
        if fd == self._wake_fd:
            os.eventfd_read(self._wake_fd)
        elif fd in self._listeners:
            self._accept(self._listeners[fd])
        elif fd in self._connections:
            connection = self._connections[fd]
            if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._receive(connection)
            if mask & select.EPOLLOUT and not connection.closing:
                self._flush(connection)

    def _work(self) -> None:
        """What was posted meanwhile."""
        while self._inbox:
            work = self._inbox.popleft()
            try:
                work()
            except Exception:
                log.exception("work on a lane thread broke")

    def _end(self) -> None:
        self._stopping = True
        for connection in list(self._connections.values()):
            self.close(connection)

    def _sweep(self) -> None:
        """Hang up on clients that have stood still for too long while it was their turn."""
        self._swept_at = now = time.monotonic()
        for connection in list(self._connections.values()):
            limit_s = self._stall_s if connection.greeted else min(HELLO_S, self._stall_s)
            theirs = connection.outgoing or not connection.greeted
            if theirs and now - connection.moved_at > limit_s:
                self.close(connection)

    # -- connections

    def listen(self, listener: socket.socket) -> None:
        self._listeners[listener.fileno()] = listener
        self._epoll.register(listener, select.EPOLLIN)

    def unlisten(self, listener: socket.socket) -> None:
        if self._listeners.pop(listener.fileno(), None) is not None:
            self._epoll.unregister(listener)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if time.monotonic() - self._complained_at > COMPLAINT_INTERVAL_S:
                    self._complained_at = time.monotonic()
                    log.warning("accept failed", why=str(error))
                time.sleep(0.01 if error.errno in (errno.EMFILE, errno.ENFILE) else 0)
                return
            self._handler.deal(sock)

    def adopt(self, sock: socket.socket) -> Connection:
        """Take over a new connection (on this thread)."""
        connection = Connection(sock, self)
        try:
            self._epoll.register(sock, connection.mask)
        except OSError:  # there are more than may be watched
            sock.close()
            raise
        self._connections[sock.fileno()] = connection
        if self._stopping:
            self.close(connection)
        return connection

    def close_idle(self) -> None:
        """Hang up on everybody who is not being answered (on this thread)."""
        for connection in list(self._connections.values()):
            if not connection.busy:
                self.close(connection)

    def close(self, connection: Connection) -> None:
        """Hang up. Whoever waits for something to leave learns that it will not."""
        if connection.closing:
            return
        connection.closing = True
        del self._connections[connection.sock.fileno()]
        self._epoll.unregister(connection.sock)
        connection.sock.close()
        gone = NodeUnavailable("the client hung up")
        for outgoing in connection.outgoing:
            outgoing.done(gone)
        connection.outgoing.clear()
        self._handler.closed(connection)

    def _receive(self, connection: Connection) -> None:
        """Answer what has come. If nobody else is served here and it is little that is asked for
        all the time, wait for more of it in the client's own socket: without epoll a turn is 2 us
        shorter (decision 14). What is posted meanwhile waits for the next request, and who else
        connects for CONVERSATION_S; both for a receive's timeout more if nothing comes.
        """
        sock, inbox, until = connection.sock, self._inbox, None
        ready = self._ready if connection.at_rest else _unready
        recv, send, sent, monotonic = sock.recv, sock.send, self._sent, time.monotonic
        while True:
            try:
                data = recv(_FIRST_BYTES)
                if len(data) == _FIRST_BYTES:
                    data += _rest(sock)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            frame = ready(data)
            if frame is None:
                connection.block(False)
                if ready is _unready or not self._handler.at_once(connection, data):
                    self._take(connection, data)
                return
            try:
                sent_bytes = send(frame, _NOW)
            except BlockingIOError:
                sent_bytes = 0
            except OSError:
                self.close(connection)
                return
            finally:
                sent()
            if sent_bytes < len(frame):
                connection.block(False)
                connection.busy = True
                self._handler.reply(connection, memoryview(frame)[sent_bytes:])
                return
            until = until or self._patience()
            if inbox or monotonic() >= until:
                break
            if not connection.blocking:
                connection.block(True)
        connection.block(False)

    def _patience(self) -> float:
        """Until when to look for nothing but the next requests of an only client, who has just been
        answered; a time that is over if he is not the only one, or does not ask all the time.
        """
        if len(self._connections) > 1:
            return -1.0
        now = time.monotonic()
        asked_at, self._asked_at = self._asked_at, now
        return now + CONVERSATION_S if now - asked_at <= PAUSE_S else -1.0

    def _take(self, connection: Connection, data: bytes) -> None:
        """What cannot be answered at once, or is not whole. Nothing: the client is gone."""
        if not data:
            self.close(connection)
            return
        connection.decoder.feed(data)
        self.advance(connection)

    def advance(self, connection: Connection) -> None:
        """Answer the next request, if one is whole and none is being answered."""
        try:
            while not connection.busy and not connection.closing:
                request = connection.decoder.next()
                if request is None:
                    break
                connection.busy = True
                connection.moved_at = time.monotonic()
                self._handler.serve(connection, *request)
        except CacheError as error:
            connection.busy = True  # for good: its decoder may not be asked again
            self._handler.refuse(connection, error)
        except Exception:
            log.exception("a request broke")
            self.close(connection)
        self._listen_for(connection)

    def _listen_for(self, connection: Connection) -> None:
        if connection.closing:
            return
        mask = select.EPOLLOUT if connection.outgoing else 0
        if len(connection.decoder.held) < MAX_UNREAD_BYTES:
            mask |= select.EPOLLIN
        if mask != connection.mask:
            connection.mask = mask
            self._epoll.modify(connection.sock, mask)

    # -- sending

    def send(self, connection: Connection, items: Iterable[Item], done: Done) -> None:
        """Send the items, then call `done` on this thread, with the error if they did not leave."""
        if connection.closing:
            done(NodeUnavailable("the client hung up"))
            return
        connection.outgoing.append(Outgoing(deque(items), done))
        if len(connection.outgoing) == 1:
            connection.moved_at = time.monotonic()
            self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        while connection.outgoing:
            outgoing = connection.outgoing[0]
            try:
                sent_bytes = push(connection.sock, outgoing.items, _TURN_BYTES)
            except OSError as error:
                self._broken(connection, outgoing, error)
                return
            if sent_bytes:
                connection.moved_at = time.monotonic()
            if outgoing.items:
                break
            connection.outgoing.popleft()
            outgoing.done(None)
        self._listen_for(connection)

    def _broken(self, connection: Connection, outgoing: Outgoing, error: OSError) -> None:
        part = outgoing.items[0]
        if isinstance(part, FilePart) and error.errno in FILE_ERRORS:
            self._handler.broken(part.pin, error)
        elif isinstance(error, passing.Unopened):
            self._handler.broken(error.pin, error)
        self.close(connection)


def _unready(_request: bytes) -> None:
    """What comes behind something that is being answered has its turn."""


def _rest(sock: socket.socket) -> bytes:
    """What else has come. Raises OSError: the client is gone."""
    try:
        return sock.recv(_RECV_BYTES, _NOW)
    except BlockingIOError:
        return b""
