"""The gRPC shell of a node: the public API for any language, over the same reader as every lane.

Rules
- `Read` answers with ReadChunk messages whose bytes are put together here (wire/codec.py): the
  payload never passes through protobuf. The wire form is an ordinary ReadChunk for everyone else.
- Every page is checked before it is sent: a gRPC client need not know our checksums.
- An error is a gRPC status (wire.codec.ERRORS); trailing metadata `cachesvc-error-code` has the
  precise wire code, because several errors share a status.
- The token travels as metadata `authorization: Bearer TOKEN` (rpc_door.py).
- The synchronous server: it passes messages through at nearly twice the rate of the asyncio one
  (docs/decisions/0007-synchronous-grpc-server.md). The price is a thread for each call: at most
  CALL_THREADS at a time, beyond them RESOURCE_EXHAUSTED at once, and a client that takes nothing
  for STALL_S, or asks for nothing (rpc_door.py), is hung up on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cachesvc.answer import Answer, Segment, right, take
from cachesvc.core.errors import InternalError
from cachesvc.core.memory import fresh_bytes
from cachesvc.core.request import ReadRequest
from cachesvc.forgetting import forget
from cachesvc.membership.cluster import Cluster
from cachesvc.reader import Reader
from cachesvc.rpc_door import REQUEST_S, RequestAwaited, TokenAsked, Turn, Turns, abort
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc.wire.v1 import cache_pb2, cluster_pb2

SERVICE = "cachesvc.wire.v1.Cache"
CHUNK_BYTES = 1 << 20  # of data in one message; gRPC's default limit for receivers is 4 MiB
CALL_THREADS = 256
STALL_S = 60.0
SWEEP_INTERVAL_S = 1.0
PENDING_INTERVAL_S = 0.5
CORRUPT_TRIES = 3

T = TypeVar("T")


class Call:
    """One call on its thread: waits on the event loop, and ends with its client."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: grpc.ServicerContext, stall_s: float
    ) -> None:
        self.turn = Turn(context, stall_s)
        self._loop = loop
        self._lock = Lock()
        self._task: asyncio.Task[Any] | None = None
        self._over = not context.add_callback(self._end)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """A coroutine set going on the loop. It is cancelled with the call; what it returned in
        spite of that is its result, because it may hold something.
        """
        return asyncio.run_coroutine_threadsafe(self._until_over(work), self._loop)

    def discard(self, future: Future[Answer] | Future[Segment | None]) -> None:
        """Wait for what nobody will take any more, and let go of what it holds."""
        with suppress(Exception, CancelledError):
            held = future.result()
            if isinstance(held, Answer):
                self.close(held)
            elif held is not None:
                held.close()

    async def _until_over(self, work: Coroutine[Any, Any, T]) -> T:
        task = self._loop.create_task(work)
        with self._lock:
            self._task = task
            if self._over:
                task.cancel()
        return await task

    def close(self, answer: Answer) -> None:
        """Let go of an answer, whether the client is there or not."""
        asyncio.run_coroutine_threadsafe(answer.aclose(), self._loop).result()

    def _end(self) -> None:
        with self._lock:
            self._over = True
            task = self._task
        if task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(task.cancel)


class GrpcService:
    """Serves Cache, health and reflection. Made, started and stopped on the event loop."""

    def __init__(
        self,
        reader: Reader,
        cluster: Cluster,
        *,
        stall_s: float = STALL_S,
        request_s: float = REQUEST_S,
    ) -> None:
        self._reader = reader
        self._cluster = cluster
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._turns = Turns()
        self._sweeper: asyncio.Task[None] | None = None
        self._health = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(CALL_THREADS, "grpc"),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1 << 20)],
            maximum_concurrent_rpcs=CALL_THREADS,
            interceptors=[TokenAsked(cluster), RequestAwaited(self._turns, stall_s, request_s)],
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    def _handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        return grpc.method_handlers_generic_handler(SERVICE, self._methods())

    def _methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "Hello": grpc.unary_unary_rpc_method_handler(
                self._hello,
                cluster_pb2.HelloRequest.FromString,
                cluster_pb2.Welcome.SerializeToString,
            ),
            "Stat": grpc.unary_unary_rpc_method_handler(
                self._stat,
                cache_pb2.StatRequest.FromString,
                cache_pb2.StatAnswer.SerializeToString,
            ),
            "Forget": grpc.unary_unary_rpc_method_handler(
                self._forget,
                cache_pb2.ForgetRequest.FromString,
                cache_pb2.ForgetAnswer.SerializeToString,
            ),
            "Read": grpc.unary_stream_rpc_method_handler(
                self._read, cache_pb2.ReadRequest.FromString, None
            ),
        }

    # -- on the loop

    def start(self, address: str) -> None:
        """Listen. Raises OSError if the address cannot be had."""
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        self._server.start()
        self._sweeper = self._loop.create_task(self._sweep())

    def serving(self, yes: bool) -> None:
        """What health checks are told."""
        states = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            self._health.set(name, states.SERVING if yes else states.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """No new calls; those under way have `grace_s` to end. Stopping twice is fine."""
        await asyncio.to_thread(self._server.stop(grace_s).wait)
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)

    async def _sweep(self) -> None:
        """Hang up on clients that take nothing, or ask for nothing."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self._turns.hang_up()

    # -- on the threads of calls

    def _call(self, context: grpc.ServicerContext) -> Call:
        return Call(self._loop, context, self._stall_s)

    def _hello(
        self, hello: cluster_pb2.HelloRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.Welcome:
        try:
            return self._cluster.welcome(hello, trusted=True)
        except Exception as error:
            abort(context, error)

    def _stat(
        self, message: cache_pb2.StatRequest, context: grpc.ServicerContext
    ) -> cache_pb2.StatAnswer:
        try:
            stat = self._call(context).begin(self._reader.stat(codec.unpack_stat(message)))
            answer = stat.result()
            return codec.pack_stat_answer(answer.version, answer.fresh_for_s, self._cluster.epoch)
        except CancelledError:
            context.abort(grpc.StatusCode.CANCELLED, "the client is gone")
        except Exception as error:
            abort(context, error)

    def _forget(
        self, message: cache_pb2.ForgetRequest, context: grpc.ServicerContext
    ) -> cache_pb2.ForgetAnswer:
        async def work() -> None:
            forget(self._reader.versions, message)

        try:
            self._call(context).begin(work()).result()
        except CancelledError:
            context.abort(grpc.StatusCode.CANCELLED, "the client is gone")
        except Exception as error:
            abort(context, error)
        return cache_pb2.ForgetAnswer()

    def _read(
        self, message: cache_pb2.ReadRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        call = self._call(context)
        with self._turns.watched(call.turn):
            answer = hit = None
            try:
                request = codec.unpack_read(message)
                answer = hit = self._reader.hit(request)
                if answer is None:
                    answer = yield from self._patiently(call, self._reader.read(request))
                yield self._prefix(ReadHead((), answer.version, answer.fresh_for_s))
                yield from self._bytes_of(call, answer)
                yield self._prefix(ReadHead(last=True))
            except CancelledError:
                return
            except Exception as error:
                abort(context, error)
            finally:
                if hit is not None:
                    hit.close()
                elif answer is not None:
                    call.close(answer)

    def _bytes_of(
        self, call: Call, answer: Answer, tries: int = CORRUPT_TRIES
    ) -> Generator[bytes, None, None]:
        """The answer's segments as messages. A segment that fails its checksums is read again."""
        while (segment := (yield from self._take(call, answer))) is not None:
            position = segment.start
            for end, message in self._messages(segment):
                yield message
                position = end
                call.turn.theirs()
            if position < segment.start + segment.length_bytes:
                again = yield from self._again(call, answer, segment, position, tries)
                try:
                    yield from self._bytes_of(call, again, tries - 1)
                finally:
                    call.close(again)

    def _again(
        self, call: Call, answer: Answer, segment: Segment, position: int, tries: int
    ) -> Generator[bytes, None, Answer]:
        if not tries:
            raise InternalError(f"{answer.version.name}: bytes keep failing their checksums")
        end = segment.start + segment.length_bytes
        name, version = answer.version.name, answer.version
        request = ReadRequest(name, ((position, end),), version, verify=True)
        return (yield from self._patiently(call, self._reader.read(request)))

    def _take(self, call: Call, answer: Answer) -> Generator[bytes, None, Segment | None]:
        """The next segment; the loop is asked only if it has to be waited for."""
        if answer.segments:
            return answer.segments.pop(0)
        if answer.more is None:
            return None
        return (yield from self._patiently(call, take(answer)))

    def _patiently(self, call: Call, work: Coroutine[Any, Any, T]) -> Generator[bytes, None, T]:
        """Its result; a pending message for every PENDING_INTERVAL_S that it takes."""
        future = call.begin(work)
        call.turn.ours()
        try:
            while not wait((future,), PENDING_INTERVAL_S).done:
                call.turn.theirs()
                yield self._prefix(ReadHead(pending=True))
                call.turn.ours()
        except GeneratorExit:
            call.discard(future)  # type: ignore[arg-type]  # T is an Answer, a Segment or None
            raise
        finally:
            call.turn.theirs()
        return future.result()

    def _messages(self, segment: Segment) -> Iterator[tuple[int, bytes]]:
        """The segment's messages, each with where it ends.

        They stop early before bytes that fail their checksum. Closes the segment.
        """
        position = segment.start
        try:
            for end in _chunk_ends(segment):
                message = self._message(segment, position, end)
                if message is None:
                    return
                yield end, message
                position = end
        finally:
            segment.close()

    def _message(self, segment: Segment, start: int, end: int) -> bytes | None:
        """`[start, end)` of a segment as one ReadChunk in wire form, received right behind its
        header; None if the bytes are not what the checksums say.
        """
        sums = segment.checksums_of(start, end, self._page_bytes)
        prefix = self._prefix(ReadHead((SegmentHead(start, end - start, segment.source, sums),)))
        message, view = fresh_bytes(len(prefix) + end - start)
        view[: len(prefix)] = prefix
        data = view[len(prefix) :]
        try:
            whole = segment.read_into(data, start) == len(data)
        except OSError as error:
            assert segment.pin is not None, "memory does not fail"
            self._reader.broken(segment.pin, error)
            return None
        return message if whole and right(data, start, sums, self._page_bytes) else None

    def _prefix(self, head: ReadHead) -> bytes:
        """A ReadChunk in wire form, up to its data."""
        header = codec.pack_read_head(replace(head, epoch=self._cluster.epoch)).SerializeToString()
        return codec.pack_chunk_prefix(header, head.body_bytes)

    @property
    def _page_bytes(self) -> int:
        return self._reader.geometry.page_bytes


def _chunk_ends(segment: Segment) -> Iterator[int]:
    """Where to cut a segment into messages: at multiples of CHUNK_BYTES in the object."""
    position, end = segment.start, segment.start + segment.length_bytes
    while position < end:
        position = min(end, (position // CHUNK_BYTES + 1) * CHUNK_BYTES)
        yield position
