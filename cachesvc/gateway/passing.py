"""What the gateway does not answer itself: passed to the origin, and its answer passed back.

Story: a read goes on as it came and comes back as it is, bytes and all (BYPASS). A write's body is
streamed; whatever becomes of it, the nodes then forget what they knew of the object (`forget`), so
that the next read asks the origin.

Rules: memory is bounded by the buffers of two connections. A body that breaks off here breaks off
at the origin too, which then stores nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from aiohttp import ClientError, ClientResponse
from aiohttp.web import BaseRequest, StreamResponse

from cachesvc.core.errors import OriginError
from cachesvc.gateway.operation import Operation
from cachesvc.gateway.relay import Outgoing, Relay, forwarded
from cachesvc.gateway.target import Target

CHUNK_BYTES = 256 << 10
_OWN = frozenset({"date", "server"})


class Passing:
    """Passes requests on. stamp: fields that every answer carries."""

    def __init__(self, relay: Relay, stamp: Mapping[str, str]) -> None:
        self._relay = relay
        self._stamp = dict(stamp)

    async def read(
        self, request: BaseRequest, target: Target, operation: Operation
    ) -> StreamResponse:
        """Pass a request without a body.

        Raises: OriginError, no answer came; ConnectionError, the answer broke off: hang up.
        """
        outgoing = Outgoing(request.method, target, request.headers)
        async with self._relay.open(outgoing, operation.name) as answer:
            return await self.back(request, answer)

    async def back(self, request: BaseRequest, answer: ClientResponse) -> StreamResponse:
        """The origin's answer as ours."""
        headers = forwarded(answer.headers, _OWN)
        headers.update(self._stamp)
        headers["X-Cache"] = "BYPASS"
        response = StreamResponse(status=answer.status, headers=headers)
        length = answer.headers.get("Content-Length")
        if length is not None:
            response.content_length = int(length)
        bodiless = request.method == "HEAD" or answer.status in (204, 304)
        await response.prepare(request)
        if not bodiless:
            async for chunk in _chunks(answer):
                await response.write(chunk)
            await response.write_eof()
        return response


async def _chunks(answer: ClientResponse) -> AsyncIterator[bytes]:
    """The body of the origin's answer. Raises ConnectionAbortedError where it breaks off."""
    try:
        while chunk := await answer.content.read(CHUNK_BYTES):
            yield chunk
    except (TimeoutError, ClientError, OriginError) as error:
        raise ConnectionAbortedError(f"the origin's answer broke off: {error}") from error
