"""The TCP and Unix lanes: framed requests in, headers and raw bodies or descriptors out.

Story: a request that is a hit is answered on the lane thread that read it: header from memory, body
by sendfile, and the event loop never hears of it. Anything else becomes a task on the loop, which
takes segments from the reader and hands them to the connection's thread one at a time, so that a
slow client holds one segment. While a fill keeps the client waiting, `pending` frames say that the
node lives.

Rules: nothing is sent after an error frame of an answer; a request without a client is cancelled.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import Any

import structlog

from cachesvc.answer import Answer, take
from cachesvc.core.errors import CacheError, InternalError, ProtocolError
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.types import ObjectVersion
from cachesvc.forgetting import forget_frame
from cachesvc.lane_answer import (
    error_frame,
    head_of,
    hit_items,
    joined,
    read_frame,
    stat_error_frame,
)
from cachesvc.lane_connection import Connection, Done
from cachesvc.lane_sending import Item
from cachesvc.lane_thread import STALL_S, LaneThread
from cachesvc.lone_reads import LoneReads
from cachesvc.membership.cluster import Cluster
from cachesvc.metrics import Metrics
from cachesvc.passing import Files, Unopened
from cachesvc.pins import Pin
from cachesvc.reader import Reader
from cachesvc.repeats import Repeats, repeat_of
from cachesvc.unix import Door
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import Kind, encode
from cachesvc.wire.v1 import cache_pb2, cluster_pb2

THREADS = 4
MAX_CONNECTION_COUNT = 10_000
PENDING_INTERVAL_S = 0.5
DRAIN_POLL_S = 0.02
BARRED_S = 60.0  # a file could not be opened once more: until others are tried again

log = structlog.get_logger(__name__)


class _Gone(Exception):
    """The client hung up while it was being answered."""


class LaneServer:
    """The lane of one node (lane_thread.Handler). Made and stopped on the event loop."""

    def __init__(
        self,
        reader: Reader,
        cluster: Cluster,
        metrics: Metrics,
        *,
        threads: int = THREADS,
        stall_s: float = STALL_S,
    ) -> None:
        self._reader = reader
        self._small = reader.small
        self._small_answer, self.sent = reader.small.answer, reader.small.sent
        self._lone = LoneReads(reader.store, reader.small.known, reader.stored, reader.geometry)
        self._repeats = Repeats(reader.store)
        reader.distrusted = self._repeats.forget
        self._cluster, self._loop = cluster, asyncio.get_running_loop()
        self._threads = [LaneThread(self, number, stall_s) for number in range(threads)]
        self._door: Door | None = None
        self._listeners: list[socket.socket] = []
        self._turns = cycle(reversed(self._threads))  # the first one, which accepts, is the last
        self._draining = False
        self._barred_until = float("-inf")
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._waiting: dict[Connection, float] = {}
        self._ticker = self._loop.create_task(self._tell_pending())
        self._hellos = metrics.requests.labels("hello", "hit")
        self._refusals = metrics.requests.labels("hello", "error")
        metrics.connections.set_function(lambda: self.connection_count)

    @property
    def connection_count(self) -> int:
        return sum(thread.connection_count for thread in self._threads)

    def _passes(self, connection: Connection) -> bool:
        """Whether its client may be passed block files."""
        return connection.local and time.monotonic() >= self._barred_until

    def start(self, listener: socket.socket, door: Door | None = None) -> None:
        """Serve a bound and listening socket, and a Unix one; `stop_listening` closes them."""
        self._door = door
        self._listeners = [listener] if door is None else [listener, door.listener]
        for one in self._listeners:
            one.setblocking(False)
            self._threads[0].listen(one)
        for thread in self._threads:
            thread.start()

    def stop_listening(self) -> None:
        """Take no new connections; those that are open go on."""
        thread = self._threads[0]
        for one in self._listeners:
            thread.post(partial(thread.unlisten, one))

    async def drain(self) -> None:
        """Hang up on clients as soon as they are not being answered, until none is left."""
        self._draining = True
        for thread in self._threads:
            thread.post(thread.close_idle)
        while self.connection_count:  # noqa: ASYNC110 - other threads hang up
            await asyncio.sleep(DRAIN_POLL_S)

    async def stop(self) -> None:
        """Hang up on everybody; requests under way are cancelled."""
        self.stop_listening()
        for thread in self._threads:  # the first one first: it deals clients to the others
            await asyncio.to_thread(thread.stop)
        tasks = [self._ticker, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- on lane threads

    def deal(self, sock: socket.socket) -> None:
        if self.connection_count >= MAX_CONNECTION_COUNT:
            sock.close()
            return
        thread = next(self._turns)
        thread.post(lambda: self._let_in(thread, sock))

    def _let_in(self, thread: LaneThread, sock: socket.socket) -> None:
        connection = thread.adopt(sock)
        if connection.local and self._door is not None:
            try:
                self._door.admit(sock)
            except CacheError as error:
                connection.barred = error  # which it hears as soon as it says something
            except BaseException:
                thread.close(connection)
                raise

    def serve(self, connection: Connection, kind: Kind, header: bytes) -> None:
        """Answer one request, here if that needs no waiting."""
        if connection.barred is not None:
            raise connection.barred
        if kind is Kind.HELLO:
            welcome = self._cluster.welcome(codec.parse(cluster_pb2.HelloRequest, header))
            connection.greeted = True
            self._hellos.inc()
            self.reply(connection, encode(Kind.WELCOME, welcome.SerializeToString()))
        elif not connection.greeted:
            raise ProtocolError(f"{kind.name} before Hello: say who you are first")
        elif kind is Kind.READ:
            self._read(connection, header)
        elif kind is Kind.STAT:
            self._stat(connection, header)
        elif kind is Kind.FORGET:
            self._hop(connection, lambda: self._answer_forget(connection, header))
        else:
            raise ProtocolError(f"a {kind.name} frame is no request")

    def ready(self, request: bytes) -> bytes | None:
        """The answer to the whole frame of a small hot read."""
        return None if self._draining else self._small_answer(request, self._cluster.table.epoch)

    def at_once(self, connection: Connection, request: bytes) -> bool:
        """Answer the whole frame of a hot read of one range, or of one that was asked before."""
        if self._draining:
            return False
        epoch = self._cluster.table.epoch
        hit = self._lone.answer(request, epoch)
        hit = hit or self._repeats.answer(request, self._passes(connection), epoch)
        if hit is None:
            return False
        connection.busy = True
        self._send_hit(connection, hit.items, hit.close)
        self._reader.hit_sent(hit.slices)
        return True

    def awaits_quiet(self) -> bool:
        """Whether something that was sent is to be told of yet."""
        return self._small.behind

    def quiet(self) -> None:
        """Time to tell of what was sent."""
        self._small.settle()

    def refuse(self, connection: Connection, error: CacheError) -> None:
        log.info("connection refused", why=str(error))
        self._refusals.inc()
        if connection.greeted:
            frame = error_frame(error)
        else:
            welcome = cluster_pb2.Welcome(error=codec.error_message(error))
            frame = encode(Kind.WELCOME, welcome.SerializeToString())
        thread = connection.thread
        thread.send(
            connection, [memoryview(frame)], lambda _: thread.post(lambda: thread.close(connection))
        )

    def broken(self, pin: Pin, error: OSError) -> None:
        if not (isinstance(error, Unopened) and error.barred):
            self._reader.broken(pin, error)
        else:
            self._barred_until = time.monotonic() + BARRED_S
            log.warning("no block files are passed for a while: answers are bytes", why=str(error))

    def closed(self, connection: Connection) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._abandon, connection)

    def _stat(self, connection: Connection, header: bytes) -> None:
        try:
            request = codec.unpack_stat(codec.parse(cache_pb2.StatRequest, header))
        except CacheError as error:
            self.reply(connection, stat_error_frame(error))
            return
        self._hop(connection, lambda: self._answer_stat(connection, request))

    def _read(self, connection: Connection, header: bytes) -> None:
        try:
            message = codec.parse(cache_pb2.ReadRequest, header)
            passes = self._passes(connection)
            request = codec.unpack_read(message, passing=passes)
            answer = self._reader.hit(request)
        except CacheError as error:
            self.reply(connection, error_frame(error))
            return
        if answer is None:
            self._hop(connection, lambda: self._answer_read(connection, request))
            return
        epoch = self._cluster.epoch
        try:
            items = hit_items(answer, epoch)
            repeat = repeat_of(request, answer.segments, items, epoch)
        except BaseException:
            answer.close()
            raise
        self._send_hit(connection, items, answer.close)
        if repeat is not None:
            self._repeats.keep(encode(Kind.READ, header), passes, repeat)

    def _send_hit(
        self, connection: Connection, items: Sequence[Item], close: Callable[[], None]
    ) -> None:
        def left(_error: BaseException | None) -> None:
            close()
            self._free(connection)

        connection.thread.send(connection, items, left)

    def reply(self, connection: Connection, answer: bytes | memoryview) -> None:
        """Send all of the answer, or what is left of it; then the next request has its turn."""
        connection.thread.send(connection, [memoryview(answer)], lambda _: self._free(connection))

    def _free(self, connection: Connection) -> None:
        """The request is answered: on to the next, if it is here already."""
        connection.busy = False
        if self._draining:
            connection.thread.post(connection.thread.close_idle)
        elif connection.decoder.held:
            connection.thread.post(lambda: connection.thread.advance(connection))

    def _hop(self, connection: Connection, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loop.call_soon_threadsafe(self._begin, connection, work)

    # -- on the loop

    def _begin(self, connection: Connection, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if connection.closing:
            return
        task = self._tasks[connection] = self._loop.create_task(work())
        task.add_done_callback(lambda task: self._end(connection, task))

    def _end(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._tasks.pop(connection, None)
        if not (task.cancelled() or isinstance(error := task.exception(), _Gone | None)):
            log.error("a request broke", why=repr(error))
        connection.thread.post(lambda: self._free(connection))

    def _abandon(self, connection: Connection) -> None:
        if (task := self._tasks.get(connection)) is not None:
            task.cancel()

    async def _answer_stat(self, connection: Connection, request: StatRequest) -> None:
        try:
            with self._patience(connection):
                answer = await self._reader.stat(request)
            stat = codec.pack_stat_answer(answer.version, answer.fresh_for_s, self._cluster.epoch)
            frame = encode(Kind.STAT_ANSWER, stat.SerializeToString())
        except Exception as error:
            frame = stat_error_frame(_explained(error))
        await self._send(connection, [memoryview(frame)])

    async def _answer_forget(self, connection: Connection, header: bytes) -> None:
        await self._send(connection, [memoryview(forget_frame(self._reader.versions, header))])

    async def _answer_read(self, connection: Connection, request: ReadRequest) -> None:
        answer = None
        try:
            with self._patience(connection):
                answer = await self._reader.read(request)
            await self._stream(connection, answer)
        except _Gone:
            return
        except Exception as error:
            await self._send(connection, [memoryview(error_frame(_explained(error)))])
        finally:
            if answer is not None:
                await answer.aclose()

    async def _stream(self, connection: Connection, answer: Answer) -> None:
        version: ObjectVersion | None = answer.version
        while True:
            with self._patience(connection):
                segment = await take(answer)
            files = Files()
            head = ReadHead(
                () if segment is None else (head_of(segment, files),),
                version,
                answer.fresh_for_s,
                last=segment is None,
                epoch=self._cluster.epoch,
            )
            version = None
            frame = read_frame(head, files)
            if segment is None:
                await self._send(connection, [frame])
                return
            try:
                await self._send(connection, joined([frame, *segment.parts]))
            finally:
                segment.close()

    async def _tell_pending(self) -> None:
        """Every client that waits hears, every PENDING_INTERVAL_S, that we still work for it."""
        while True:
            await asyncio.sleep(PENDING_INTERVAL_S / 2)
            now = self._loop.time()
            frame = read_frame(ReadHead(pending=True, epoch=self._cluster.epoch), Files())
            for connection, since in self._waiting.items():
                if now - since >= PENDING_INTERVAL_S:
                    self._waiting[connection] = now
                    self._post(connection, [frame], lambda _: None)

    @contextmanager
    def _patience(self, connection: Connection) -> Iterator[None]:
        """What is awaited within keeps the client waiting."""
        self._waiting[connection] = self._loop.time()
        try:
            yield
        finally:
            del self._waiting[connection]

    async def _send(self, connection: Connection, items: Sequence[Item]) -> None:
        """Until the connection has taken the items. Raises _Gone if it is gone."""
        sent: asyncio.Future[None] = self._loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not sent.done():
                if error is None:
                    sent.set_result(None)
                else:
                    sent.set_exception(_Gone(str(error)))

        def done(error: BaseException | None) -> None:
            self._loop.call_soon_threadsafe(settle, error)

        self._post(connection, items, done)
        await sent

    @staticmethod
    def _post(connection: Connection, items: Sequence[Item], done: Done) -> None:
        connection.thread.post(lambda: connection.thread.send(connection, items, done))


def _explained(error: Exception) -> CacheError:
    if isinstance(error, CacheError):
        return error
    log.exception("a request broke")
    return InternalError(f"a defect ({type(error).__name__}); the node's log has more")
