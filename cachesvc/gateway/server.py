"""The gateway's server: one request in, one answer out, whatever happens.

Story: plain requests for what is stored are answered by their connection (connection, hits). Of all
others aiohttp parses HTTP; the raw request target is taken apart here, because a path decoded or
normalised by others is another key. Who asks is checked (auth), what is asked is named (operation),
and it is answered from the cache (reading) or passed to the origin (passing).

Rules
- Every answer has x-amz-request-id, Server, X-Cache-Node; every error is S3's XML.
- What fails before the head is an error document; behind the head, the connection ends.
- At most MAX_REQUEST_COUNT requests at a time, beyond: 503 SlowDown at once. At most
  MAX_CONNECTION_COUNT connections, beyond: 503 and closed, before anything is read. A connection
  without a request for _KEEP_IDLE_S is closed.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Mapping

import structlog
from aiohttp.web import BaseRequest, Response, StreamResponse

from cachesvc.core.errors import CacheError, NotCacheable, ObjectNotFound
from cachesvc.core.types import ObjectName
from cachesvc.gateway.auth import Guard
from cachesvc.gateway.aws_chunked import Seal
from cachesvc.gateway.connection import Connections
from cachesvc.gateway.errors import S3Error, not_implemented, of_cache_error, slow_down
from cachesvc.gateway.hits import Hits
from cachesvc.gateway.operation import Operation, Way, operation_of
from cachesvc.gateway.passing import Passing
from cachesvc.gateway.reading import SENT_STATUS, Reading
from cachesvc.gateway.relay import Outgoing, Relay
from cachesvc.gateway.sending import Sending
from cachesvc.gateway.target import Target, parse_target
from cachesvc.gateway.writing import Writing
from cachesvc.metrics import Metrics

MAX_REQUEST_COUNT = 4096
MAX_CONNECTION_COUNT = 8192
BUCKET_KNOWN_S = 60.0
MAX_BUCKET_COUNT = 10_000
_MAX_LINE_BYTES = 16 << 10
_KEEP_IDLE_S = 75.0
_LEAST_GRACE_S = 0.01  # to aiohttp none at all is for ever

log = structlog.get_logger(__name__)


class Gateway:
    """The S3 gateway of one node. domain: for virtual-host style, or "". guard: None lets everybody
    in.
    """

    def __init__(
        self,
        reading: Reading,
        passing: Passing,
        writing: Writing,
        relay: Relay,
        hits: Hits,
        sending: Sending,
        guard: Guard | None,
        metrics: Metrics,
        stamp: Mapping[str, str],
        *,
        domain: str = "",
    ) -> None:
        self._reading = reading
        self._passing = passing
        self._writing = writing
        self._relay = relay
        self._guard = guard
        self._metrics = metrics
        self._stamp = dict(stamp)
        self._domain = domain
        self._active_count = 0
        self._buckets: dict[str, float] = {}
        self._server: asyncio.Server | None = None
        self._web = Connections(
            self.handle,
            hits,
            sending,
            self._count,
            self._roomy,
            self._malformed,
            keep_idle_s=_KEEP_IDLE_S,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
        )

    async def start(self, listener: socket.socket) -> None:
        """Serve a bound and listening socket, which is closed with the gateway."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connected, sock=listener)

    def _connected(self) -> asyncio.BaseProtocol:
        full = len(self._web.connections) >= MAX_CONNECTION_COUNT
        return _Full() if full else self._web()

    def stop_listening(self) -> None:
        """Take no new connections; those that are being answered go on."""
        if self._server is not None:
            self._server.close()
        self._web.pre_shutdown()

    async def stop(self, grace_s: float = 0.0) -> None:
        """Let what is under way end, `grace_s` at most. Stopping twice is fine."""
        self.stop_listening()
        grace_s = max(grace_s, _LEAST_GRACE_S)
        await asyncio.gather(self._web.end(grace_s), self._web.shutdown(grace_s))

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Answer one request; cancelled when its client goes."""
        request_id = secrets.token_hex(8).upper()
        operation = "unknown"
        try:
            if not self._roomy():
                raise slow_down(f"{MAX_REQUEST_COUNT} requests are under way")
            self._active_count += 1
            try:
                target = parse_target(
                    request.raw_path, request.headers.get("Host", ""), self._domain
                )
                wanted = operation_of(request.method, target, request.headers)
                if wanted.way is Way.REFUSED:
                    operation = "refused"
                    raise not_implemented(wanted.name)
                operation, seal = wanted.name, None
                if self._guard is not None:
                    seal = self._guard.check(request.method, target, request.headers)
                response = await self._answer(request, target, wanted, seal, request_id)
            finally:
                self._active_count -= 1
        except S3Error as error:
            response = self._refusal(request, error, request_id)
        except ConnectionError as error:
            log.info("a connection ended in mid-answer", why=str(error))
            response = _hung_up(request)
        except CacheError as error:
            response = self._refusal(request, of_cache_error(error), request_id)
        except Exception:
            log.exception("a request broke", operation=operation)
            defect = S3Error(500, "InternalError", "a defect; the node's log has more")
            response = self._refusal(request, defect, request_id)
        except asyncio.CancelledError:
            code = "sent" if request.writer.output_size else "gone"
            self._count(operation, str(request.get(SENT_STATUS) or code))
            raise
        self._count(operation, str(response.status))
        return response

    def _roomy(self) -> bool:
        """Whether one request more may be under way."""
        return self._active_count + len(self._web.busy) < MAX_REQUEST_COUNT

    def _count(self, operation: str, code: str) -> None:
        self._metrics.s3_requests.labels(operation, code).inc()

    async def _answer(
        self,
        request: BaseRequest,
        target: Target,
        wanted: Operation,
        seal: Seal | None,
        request_id: str,
    ) -> StreamResponse:
        if wanted.way is Way.CACHED:
            name = ObjectName(target.bucket, target.key)
            try:
                return await self._reading.answer(request, name, request_id)
            except NotCacheable:
                return await self._passing.read(request, target, wanted)
            except ObjectNotFound as error:
                raise await self._not_found(target) from error
        if wanted.way is Way.READ:
            return await self._passing.read(request, target, wanted)
        if wanted.way is Way.DELETE_MANY:
            return await self._writing.delete_many(request, target, wanted, seal)
        assert wanted.way is Way.WRITE, wanted
        if not target.key:
            self._buckets.pop(target.bucket, None)
        return await self._writing.write(request, target, wanted, seal)

    async def _not_found(self, target: Target) -> S3Error:
        """Whether it is the key that is missing, or all of the bucket."""
        if self._buckets.get(target.bucket, 0.0) < time.monotonic():
            bucket = Target(target.bucket, "", (), f"/{target.bucket}")
            async with self._relay.open(Outgoing("HEAD", bucket, {}), "HeadBucket") as answer:
                if answer.status == 404:
                    text = "The specified bucket does not exist"
                    return S3Error(404, "NoSuchBucket", text, {"BucketName": target.bucket})
            if len(self._buckets) >= MAX_BUCKET_COUNT:
                self._buckets.clear()
            self._buckets[target.bucket] = time.monotonic() + BUCKET_KNOWN_S
        text = "The specified key does not exist."
        return S3Error(404, "NoSuchKey", text, {"Key": target.key})

    def _malformed(self, request: BaseRequest, status: int, why: str) -> Response:
        self._count("unknown", str(status))
        error = S3Error(status, "BadRequest", f"The HTTP request is malformed: {why}")
        return self._refusal(request, error, secrets.token_hex(8).upper())

    def _refusal(self, request: BaseRequest, error: S3Error, request_id: str) -> Response:
        if request.writer.output_size:
            return _hung_up(request)
        path = request.raw_path.partition("?")[0]
        body = b"" if request.method == "HEAD" else error.xml(path, request_id)
        headers = error.headers | self._stamp | {"x-amz-request-id": request_id}
        response = Response(
            status=error.status, headers=headers, body=body, content_type="application/xml"
        )
        if not request.content.is_eof() or "Expect" in request.headers:
            response.force_close()  # the rest of the body is not worth reading, or inviting
        return response


class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(
            b"HTTP/1.1 503 Slow Down\r\nRetry-After: 1\r\nConnection: close\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        transport.close()


def _hung_up(request: BaseRequest) -> Response:
    """Hang up. What is returned aiohttp fails to send, and ends quietly."""
    if request.transport is not None:
        request.transport.abort()
    return Response(status=500)
