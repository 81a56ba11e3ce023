"""The aws-chunked coding of bodies: chunks with a size, perhaps a signature, and trailers.

    hex size [";chunk-signature=" 64 hex] CRLF data CRLF ... "0" ... CRLF trailers CRLF

Story: `Decoder.payload` gives the data as it comes. Where the client's key is known (`Seal`), each
chunk is held to its signature before its last bytes are given, and the trailer to its own: whoever
forwards the data can still break off. What a trailer says is in `trailers` at the end. `encode`
puts data and trailers into the same coding again, unsigned.

Rules: memory is bounded by PIECE_BYTES; a line by MAX_LINE_BYTES; what is malformed is 400.

Source: AWS, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple
Chunks", Amazon S3 API Reference.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Protocol

from cachesvc.gateway.errors import S3Error
from cachesvc.gateway.sigv4 import EMPTY_SHA256, Scope, string_signature

PIECE_BYTES = 64 << 10
MAX_LINE_BYTES = 8 << 10
MAX_TRAILER_COUNT = 16
_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?")


class Source(Protocol):
    """Where the coded bytes come from, as aiohttp.StreamReader has them."""

    async def read(self, n: int) -> bytes: ...

    async def readline(self) -> bytes: ...


class Seal:
    """The chain of signatures of one body. signature: the request's own, the first of the chain."""

    def __init__(self, key: bytes, time: str, scope: Scope, signature: str) -> None:
        self._key = key
        self._time = time
        self._scope = scope
        self._last = signature

    def check_chunk(self, digest: str, signature: bytes | None) -> None:
        """Raises S3Error, 403, unless the chunk's signature is right."""
        self._check("AWS4-HMAC-SHA256-PAYLOAD", (EMPTY_SHA256, digest), signature)

    def check_trailer(self, digest: str, signature: bytes | None) -> None:
        """The same for the trailer."""
        self._check("AWS4-HMAC-SHA256-TRAILER", (digest,), signature)

    def _check(self, algorithm: str, digests: tuple[str, ...], signature: bytes | None) -> None:
        text = "\n".join((algorithm, self._time, str(self._scope), self._last, *digests))
        expected = string_signature(self._key, text)
        if signature is None or not hmac.compare_digest(expected.encode(), signature):
            raise S3Error(
                403, "SignatureDoesNotMatch", "The signature of a chunk of the body is wrong"
            )
        self._last = expected


class Decoder:
    """One body being decoded. seal: None checks no signature."""

    def __init__(self, source: Source, seal: Seal | None = None) -> None:
        self.trailers: dict[str, str] = {}
        self.length_bytes = 0
        self._source = source
        self._seal = seal

    async def payload(self) -> AsyncIterator[bytes]:
        """The data. Raises S3Error: 400, malformed or ending early; 403, a wrong signature."""
        while True:
            size = _SIZE.fullmatch((await self._line()).strip())
            if size is None:
                raise _malformed("a chunk begins without its size")
            left = int(size[1], 16)
            digest, held = sha256(), b""
            if not left:
                self._check_chunk(digest.hexdigest(), size[2])
                await self._read_trailers()
                return
            while left:
                piece = await self._source.read(min(left, PIECE_BYTES))
                if not piece:
                    raise _malformed("it ends within a chunk")
                left -= len(piece)
                self.length_bytes += len(piece)
                if self._seal is not None:
                    digest.update(piece)
                if held:
                    yield held
                held = piece
            self._check_chunk(digest.hexdigest(), size[2])
            yield held
            if await self._line():
                raise _malformed("a chunk is longer than it says")

    def _check_chunk(self, digest: str, signature: bytes | None) -> None:
        if self._seal is not None:
            self._seal.check_chunk(digest, signature)

    async def _read_trailers(self) -> None:
        signed, signature = b"", None
        for _ in range(MAX_TRAILER_COUNT):
            line = await self._line(optional=True)
            if not line:
                break
            name, _, value = line.decode("latin-1").partition(":")
            if name.strip().lower() == "x-amz-trailer-signature":
                signature = value.strip().encode()
                continue
            self.trailers[name.strip().lower()] = value.strip()
            signed += f"{name.strip().lower()}:{value.strip()}\n".encode("latin-1")
        if self._seal is not None and self.trailers:
            self._seal.check_trailer(sha256(signed).hexdigest(), signature)

    async def _line(self, *, optional: bool = False) -> bytes:
        """A line without its end. optional: the body may end here."""
        try:
            line = await self._source.readline()
        except ValueError as error:
            raise _malformed("a line without an end") from error
        if not line and optional:
            return b""
        if not line.endswith(b"\n") or len(line) > MAX_LINE_BYTES:
            raise _malformed("a line is cut or too long")
        return line.rstrip(b"\r\n")


async def encode(
    data: AsyncIterator[bytes], trailers: Callable[[], Mapping[str, str]]
) -> AsyncIterator[bytes]:
    """Data and trailers, unsigned. trailers: asked once all data has come."""
    async for piece in data:
        yield b"%x\r\n" % len(piece)
        yield piece
        yield b"\r\n"
    lines = "".join(f"{name}:{value}\r\n" for name, value in trailers().items())
    yield f"0\r\n{lines}\r\n".encode("latin-1")


async def patiently(step: Awaitable[bytes], limit_s: float) -> bytes:
    """What the client sends next. Raises S3Error: 400, it sends nothing for so long."""
    try:
        return await asyncio.wait_for(step, limit_s)
    except TimeoutError as error:
        raise S3Error(400, "RequestTimeout", "Nothing of the body came for a while") from error


def _malformed(why: str) -> S3Error:
    return S3Error(400, "IncompleteBody", f"The aws-chunked body is malformed: {why}")
