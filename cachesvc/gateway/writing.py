"""Writes: passed to the origin with the client's body, streamed; then all nodes forget the object.

Story: what the client sends is one of four bodies, told apart by x-amz-content-sha256 (`_sent`):
bare bytes and aws-chunked bytes with an unsigned trailer go on as they are, and the origin checks
them; chunks signed with the client's key are decoded, checked where that key is known, and go on
bare or with the trailer coded anew. When the origin has answered, or failed to, this node and the
others forget the object's version, before the client hears of it.

Rules: memory is bounded (aws_chunked.PIECE_BYTES and the buffers of two connections); only the body
of DeleteObjects is read whole, MAX_DELETE_BYTES at most, because it names the objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from aiohttp import ClientPayloadError
from aiohttp.web import BaseRequest, RequestPayloadError, StreamResponse
from multidict import CIMultiDict

from cachesvc.core.errors import InvalidKey
from cachesvc.core.types import ObjectName
from cachesvc.gateway.aws_chunked import PIECE_BYTES, Decoder, Seal, encode, patiently
from cachesvc.gateway.deletion import keys_of
from cachesvc.gateway.errors import S3Error, not_implemented
from cachesvc.gateway.operation import Operation
from cachesvc.gateway.passing import Passing
from cachesvc.gateway.relay import Body, Outgoing, Relay
from cachesvc.gateway.sigv4 import UNSIGNED
from cachesvc.gateway.target import Target

MAX_DELETE_BYTES = 4 << 20
STALL_S = 60.0  # a client that sends nothing for so long is refused
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
# Writes that leave the object itself as it is.
_PREPARING = frozenset(
    {"CreateMultipartUpload", "UploadPart", "UploadPartCopy", "AbortMultipartUpload"}
)

Forget = Callable[[Sequence[ObjectName]], Awaitable[None]]


class Writing:
    """Passes writes on. forget: has all nodes forget the versions of objects."""

    def __init__(self, relay: Relay, passing: Passing, forget: Forget) -> None:
        self._relay = relay
        self._passing = passing
        self._forget = forget

    async def write(
        self, request: BaseRequest, target: Target, operation: Operation, seal: Seal | None
    ) -> StreamResponse:
        """Pass a write of an object or a bucket.

        Raises: S3Error, the body is malformed or refused; OriginError, no answer came;
        ConnectionError, the client is gone.
        """
        names = []
        if target.key and operation.name not in _PREPARING:
            names.append(ObjectName(target.bucket, target.key))
        outgoing = await _sent(request, target, seal)
        return await self._pass(request, outgoing, operation, names)

    async def delete_many(
        self, request: BaseRequest, target: Target, operation: Operation, seal: Seal | None
    ) -> StreamResponse:
        """Pass a DeleteObjects. Raises as `write` does."""
        outgoing = await _sent(request, target, seal)
        body = b""
        async for piece in outgoing.body or _once(b""):
            body += piece
            if len(body) > MAX_DELETE_BYTES:
                raise S3Error(400, "MalformedXML", f"More than {MAX_DELETE_BYTES} bytes of names")
        names, coded = [], outgoing.payload == UNSIGNED_TRAILER
        for key in keys_of(await _within(body) if coded else body):
            try:
                names.append(ObjectName(target.bucket, key))
            except InvalidKey:
                continue  # which no node can have cached
        outgoing = replace(outgoing, body=_once(body), length_bytes=len(body))
        return await self._pass(request, outgoing, operation, names)

    async def _pass(
        self,
        request: BaseRequest,
        outgoing: Outgoing,
        operation: Operation,
        names: Sequence[ObjectName],
    ) -> StreamResponse:
        broken = _Broken(outgoing.body)
        if outgoing.body is not None:
            outgoing = outgoing.with_body(broken.pieces())
        forgotten = False
        try:
            async with self._relay.open(outgoing, operation.name) as answer:
                await self._forget(names)
                forgotten = True
                return await self._passing.back(request, answer)
        except BaseException:
            if not forgotten:
                await self._forget(names)
            if broken.error is not None:
                raise broken.error from None
            raise


@dataclass(slots=True)
class _Broken:
    """A body on its way, and what it failed with here, which is not the origin's fault."""

    body: Body | None
    error: S3Error | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        assert self.body is not None
        try:
            async for piece in self.body:
                yield piece
        except S3Error as error:
            self.error = error
            raise ConnectionAbortedError(error.message) from error


async def _sent(request: BaseRequest, target: Target, seal: Seal | None) -> Outgoing:
    """The request as it goes on, by what its body is."""
    payload = request.headers.get("x-amz-content-sha256", UNSIGNED)
    if payload in (_SIGNED_CHUNKS, _SIGNED_TRAILER):
        return await _decoded(request, target, payload, seal)
    if payload.startswith("STREAMING-") and payload != UNSIGNED_TRAILER:
        raise not_implemented(f"a body of the kind {payload}")
    length = request.content_length
    if not request.can_read_body:
        await _invite(request)  # to nothing: the command line of AWS would wait for it later on
        length = None if request.method == "DELETE" else 0
        return Outgoing(request.method, target, request.headers, payload, None, length)
    await _invite(request)
    return Outgoing(request.method, target, request.headers, payload, _bare(request), length)


async def _decoded(
    request: BaseRequest, target: Target, payload: str, seal: Seal | None
) -> Outgoing:
    headers = CIMultiDict(request.headers)
    text = headers.get("x-amz-decoded-content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise S3Error(411, "MissingContentLength", "x-amz-decoded-content-length is missing")
    await _invite(request)
    decoder = Decoder(_Patient(request), seal)
    data = _exactly(decoder, int(text))
    if payload == _SIGNED_TRAILER:
        coded = encode(data, lambda: decoder.trailers)
        return Outgoing(request.method, target, headers, UNSIGNED_TRAILER, coded, None)
    del headers["x-amz-decoded-content-length"]
    codings = [one.strip() for one in headers.pop("Content-Encoding", "").split(",")]
    kept = [one for one in codings if one and one != "aws-chunked"]
    if kept:
        headers["Content-Encoding"] = ",".join(kept)
    return Outgoing(request.method, target, headers, UNSIGNED, data, int(text))


async def _exactly(decoder: Decoder, length_bytes: int) -> AsyncIterator[bytes]:
    """The decoded data, held to the length that was promised."""
    async for piece in decoder.payload():
        if decoder.length_bytes > length_bytes:
            break
        yield piece
    if decoder.length_bytes != length_bytes:
        raise S3Error(
            400,
            "IncompleteBody",
            "You did not provide the number of bytes specified by x-amz-decoded-content-length",
        )


async def _invite(request: BaseRequest) -> None:
    """Have a client that waits for it send its body."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # no part of the answer


async def _bare(request: BaseRequest) -> AsyncIterator[bytes]:
    source = _Patient(request)
    while piece := await source.read(PIECE_BYTES):
        yield piece


async def _within(coded: bytes) -> bytes:
    """The data of a whole aws-chunked body."""
    source = asyncio.StreamReader()
    source.feed_data(coded)
    source.feed_eof()
    return b"".join([piece async for piece in Decoder(source).payload()])


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


class _Patient:
    """The request's body, with a limit on silence; what breaks it off is the client's fault."""

    def __init__(self, request: BaseRequest) -> None:
        self._content = request.content

    async def read(self, n: int) -> bytes:
        return await self._take(self._content.read(n))

    async def readline(self) -> bytes:
        return await self._take(self._content.readline())

    async def _take(self, step: Awaitable[bytes]) -> bytes:
        try:
            return await patiently(step, STALL_S)
        except (ClientPayloadError, RequestPayloadError) as error:
            raise S3Error(400, "IncompleteBody", f"The body is broken: {error}") from error
