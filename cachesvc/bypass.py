"""What may not be cached: one origin GET, passed through and stored nowhere.

Rules: never a short answer; what was asked of the origin is given back when the answer is closed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack

from cachesvc.answer import Answer, Segment
from cachesvc.core.errors import OriginError
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import Source
from cachesvc.origin.base import BypassStream, Origin

Count = Callable[[str, list[tuple[Source, int]]], None]


class Bypass:
    """Reads past the store. count: told of the result, and how many bytes came from where."""

    def __init__(self, origin: Origin, count: Count) -> None:
        self._origin = origin
        self._count = count

    async def read(self, request: ReadRequest) -> Answer:
        """The answer to a request for a bypass, whose one range is cut to the object's end.

        Raises: as Origin.stream; OriginError while segments are taken.
        """
        start, end = request.ranges[0]
        resources = AsyncExitStack()
        stream = await resources.enter_async_context(self._origin.stream(request.name, start, end))
        return Answer(stream.version, 0.0, more=self._passed(stream), resources=resources)

    async def _passed(self, stream: BypassStream) -> AsyncGenerator[Segment, None]:
        position = stream.wanted.start
        result = "error"
        try:
            async for chunk in stream.chunks:
                start, position = position, position + len(chunk)
                yield Segment(start, len(chunk), Source.BYPASS, parts=[memoryview(chunk)])
            if position != stream.wanted.end:
                raise OriginError(f"{stream.version.name}: the origin sent a short answer")
            result = "bypass"
        except GeneratorExit:  # who was handed all of it need not come back for the end
            if position == stream.wanted.end:
                result = "bypass"
            raise
        finally:
            self._count(result, [(Source.BYPASS, position - stream.wanted.start)])
