"""Sending a body: its segments through an outlet, and what fails its checks once more.

Rules: what of a segment fails its checks is filled and sent again from there, CORRUPT_TRIES times
at most; the client gets the right bytes, or the connection ends.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import aclosing, closing
from functools import partial

from cachesvc.answer import Answer, Segment, take
from cachesvc.core.errors import InternalError, Overloaded
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ByteRange, ObjectVersion
from cachesvc.gateway.outlet import TURN_BYTES, Outlet, SendThreads
from cachesvc.reader import Reader

CORRUPT_TRIES = 3
SMALL_BYTES = 128 << 10  # up to here what is in memory leaves together with its head


class Sending:
    """Of one gateway."""

    def __init__(self, reader: Reader, threads: SendThreads) -> None:
        self._reader = reader
        self._threads = threads

    def outlet(self, transport: asyncio.Transport) -> Outlet:
        """For one answer, to be closed behind it.

        Raises: Overloaded, the node has no descriptor for it; ConnectionError, the client is gone.
        """
        page_bytes = self._reader.geometry.page_bytes
        try:
            return Outlet(transport, self._threads, page_bytes, self._reader.broken)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                why = "the node is short of descriptors: raise its limit (ulimit -n)"
                raise Overloaded(f"{why}, or ask again later") from error
            raise ConnectionResetError(f"the client is gone: {error}") from error

    def push(self, outlet: Outlet, segments: Sequence[Segment]) -> Future[tuple[int, int]]:
        """Have a thread send the segments, without waiting for a slow client: how many have left
        whole, and where in the next one it stopped. Fails with OSError if the client is gone.
        """
        return self._threads.submit(partial(_push, outlet, segments))

    async def rest(
        self, outlet: Outlet, version: ObjectVersion, answer: Answer, tries: int = CORRUPT_TRIES
    ) -> None:
        """All segments of an answer that have not been taken.

        Raises: ConnectionError, the client is gone or takes nothing; CacheErrors.
        """
        while (segment := await take(answer)) is not None:
            with closing(segment):
                await self.segment(outlet, version, segment, segment.start, tries)

    async def segment(
        self,
        outlet: Outlet,
        version: ObjectVersion,
        segment: Segment,
        position: int,
        tries: int = CORRUPT_TRIES,
    ) -> None:
        """A segment, from this position in the object on. Raises: as `rest`."""
        position, end = await outlet.send(segment, position), segment.start + segment.length_bytes
        if position == end:
            return
        if not tries:
            raise InternalError(f"{version.name}: bytes keep failing their checksums")
        again = ReadRequest(version.name, ((position, end),), version, verify=True)
        async with aclosing(await self._reader.read(again)) as answer:
            await self.rest(outlet, version, answer, tries - 1)


def small_body(segments: Sequence[Segment]) -> bytes | None:
    """All of a body that is in memory and has at most SMALL_BYTES; None: it needs an outlet."""
    parts = [part for segment in segments for part in segment.parts]
    memory = [part for part in parts if isinstance(part, memoryview)]
    if len(memory) < len(parts) or sum(map(len, memory)) > SMALL_BYTES:
        return None
    return b"".join(memory)


def range_of(version: ObjectVersion, wanted: ByteRange) -> ReadRequest:
    """A read of one range of a version that is known."""
    return ReadRequest(version.name, ((wanted.start, wanted.end),), version)


def _push(outlet: Outlet, segments: Sequence[Segment]) -> tuple[int, int]:
    """On a thread, for one turn."""
    left_bytes = TURN_BYTES
    for number, segment in enumerate(segments):
        if left_bytes <= 0:
            return number, segment.start
        more = number + 1 < len(segments)
        position, stopped = outlet.push(segment, segment.start, more=more)
        if stopped is not None:
            return number, position
        left_bytes -= segment.length_bytes
    return len(segments), 0
