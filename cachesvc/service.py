"""The gRPC shell of a node: the public API for any language, over the same reader as every lane.

Rules
- `Read` answers with ReadChunk messages whose bytes are put together here (wire/codec.py): the
  payload never passes through protobuf. The wire form is an ordinary ReadChunk for everyone else.
- Every page is checked before it is sent: a gRPC client need not know our checksums.
- An error is a gRPC status (wire.codec.ERRORS); trailing metadata `cachesvc-error-code` has the
  precise wire code, because several errors share a status.
- The token travels as metadata `authorization: Bearer TOKEN`. Health and reflection are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # not in the stubs
from grpc_reflection.v1alpha import reflection

from cachesvc.answer import Answer, Segment, take
from cachesvc.core.blocks import cuts
from cachesvc.core.errors import CacheError, InternalError
from cachesvc.core.format import CHECKSUM_BYTES, checksum
from cachesvc.core.request import ReadRequest
from cachesvc.membership.cluster import Cluster
from cachesvc.reader import Reader
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc.wire.v1 import cache_pb2, cluster_pb2

SERVICE = "cachesvc.wire.v1.Cache"
CHUNK_BYTES = 1 << 20  # of data in one message; gRPC's default limit for receivers is 4 MiB
MAX_CALL_COUNT = 1024
CORRUPT_TRIES = 3

log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


class GrpcService:
    """Serves Cache, health and reflection. Made, started and stopped on the event loop."""

    def __init__(self, reader: Reader, cluster: Cluster) -> None:
        self._reader = reader
        self._cluster = cluster
        self._health = health_aio.HealthServicer()
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1 << 20)]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_CALL_COUNT)
        self._server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)

    def _handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
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
                "Read": grpc.unary_stream_rpc_method_handler(
                    self._read, cache_pb2.ReadRequest.FromString, None
                ),
            },
        )

    async def start(self, address: str) -> int:
        """Listen; returns the port. Raises OSError if the address cannot be had."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"{error}") from error
        await self._server.start()
        return port

    async def serving(self, yes: bool) -> None:
        """What health checks are told."""
        states = health_pb2.HealthCheckResponse.ServingStatus
        state = states.SERVING if yes else states.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, state)

    async def stop(self, grace_s: float) -> None:
        """No new calls; those under way have `grace_s` to end."""
        await self._server.stop(grace_s)

    async def _hello(
        self, hello: cluster_pb2.HelloRequest, context: Context
    ) -> cluster_pb2.Welcome:
        await self._authorize(context)
        try:
            return self._cluster.welcome(hello, trusted=True)
        except CacheError as error:
            return await self._abort(context, error)

    async def _stat(self, message: cache_pb2.StatRequest, context: Context) -> cache_pb2.StatAnswer:
        await self._authorize(context)
        try:
            answer = await self._reader.stat(codec.unpack_stat(message))
            return codec.pack_stat_answer(answer.version, answer.fresh_for_s, self._cluster.epoch)
        except Exception as error:
            return await self._abort(context, error)

    async def _read(self, message: cache_pb2.ReadRequest, context: Context) -> AsyncIterator[bytes]:
        await self._authorize(context)
        try:
            request = codec.unpack_read(message)
            answer = await self._reader.read(request)
            yield self._chunk(ReadHead((), answer.version, answer.fresh_for_s))
            async for chunk in self._bytes_of(answer):
                yield chunk
            yield self._chunk(ReadHead(last=True))
        except Exception as error:
            await self._abort(context, error)

    async def _bytes_of(self, answer: Answer, tries: int = CORRUPT_TRIES) -> AsyncIterator[bytes]:
        """The answer's segments as messages. A segment that fails its checksums is read again."""
        try:
            while (segment := await take(answer)) is not None:
                position = segment.start
                try:
                    for end in _chunk_ends(segment):
                        data = await asyncio.to_thread(
                            _load, segment, position, end, self._page_bytes
                        )
                        if data is None:
                            break
                        yield self._message(segment, position, data)
                        position = end
                finally:
                    segment.close()
                if position < segment.start + segment.length_bytes:
                    again = await self._again(answer, segment, position, tries)
                    async for chunk in self._bytes_of(again, tries - 1):
                        yield chunk
        finally:
            await answer.aclose()

    async def _again(self, answer: Answer, segment: Segment, position: int, tries: int) -> Answer:
        if not tries:
            raise InternalError(f"{answer.version.name}: bytes keep failing their checksums")
        end = segment.start + segment.length_bytes
        return await self._reader.read(
            ReadRequest(answer.version.name, ((position, end),), answer.version, verify=True)
        )

    def _message(self, segment: Segment, position: int, data: memoryview) -> bytes:
        sums = _sums(segment, position, position + len(data), self._page_bytes)
        return self._chunk(
            ReadHead((SegmentHead(position, len(data), segment.source, sums),)), data
        )

    def _chunk(self, head: ReadHead, data: memoryview | bytes = b"") -> bytes:
        """A ReadChunk in wire form."""
        header = codec.pack_read_head(replace(head, epoch=self._cluster.epoch)).SerializeToString()
        return b"".join((codec.pack_chunk_prefix(header, len(data)), data))

    @property
    def _page_bytes(self) -> int:
        return self._reader.geometry.page_bytes

    async def _authorize(self, context: Context) -> None:
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not isinstance(given, str):
            given = ""
        try:
            self._cluster.check_token(given.removeprefix("Bearer "), f"gRPC {context.peer()}")
        except CacheError as error:
            await self._abort(context, error)

    async def _abort(self, context: Context, error: Exception) -> NoReturn:
        """End the call with the error's status; a stranger is a defect, and logged."""
        if not isinstance(error, CacheError):
            if isinstance(error, grpc.aio.AbortError):
                raise error
            log.exception("a call broke")
            error = InternalError(f"a defect ({type(error).__name__}); the node's log has more")
        code, status, _ = codec.code_of(error)
        details = (("cachesvc-error-code", str(int(code))),)
        await context.abort(grpc.StatusCode[status], str(error), details)
        raise AssertionError("abort raises")


def _chunk_ends(segment: Segment) -> Iterator[int]:
    """Where to cut a segment into messages: at multiples of CHUNK_BYTES in the object."""
    position, end = segment.start, segment.start + segment.length_bytes
    while position < end:
        position = min(end, (position // CHUNK_BYTES + 1) * CHUNK_BYTES)
        yield position


def _sums(segment: Segment, start: int, end: int, page_bytes: int) -> bytes:
    """The checksums that belong to `[start, end)`, whose borders are the segment's or a page's."""
    if not segment.checksums:
        return b""
    first = start // page_bytes - segment.start // page_bytes
    beyond = -(-end // page_bytes) - segment.start // page_bytes
    return segment.checksums[first * CHECKSUM_BYTES : beyond * CHECKSUM_BYTES]


def _load(segment: Segment, start: int, end: int, page_bytes: int) -> memoryview | None:
    """`[start, end)` of the segment, checked; None if it is not what the checksums say. Blocks."""
    data = memoryview(segment.read(start, end))
    sums = _sums(segment, start, end, page_bytes)
    if len(data) != end - start:
        return None
    for number, (first, beyond) in enumerate(cuts(start, end, page_bytes) if sums else ()):
        expected = sums[number * CHECKSUM_BYTES : (number + 1) * CHECKSUM_BYTES]
        if checksum(data[first - start : beyond - start]) != expected:
            return None
    return data
