"""The origin as one simulated node sees it; two GETs of the same bytes at a time are held against
the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.origin.base import BypassStream, Listing, ProbeSink, Sink

if TYPE_CHECKING:
    from tests.sim.node import SimNode


class Watched:
    """The sink of a probe, and somebody else who is told what was found (origin.base.ProbeSink)."""

    def __init__(self, sink: ProbeSink, told: Callable[[ObjectVersion], None]) -> None:
        self._sink = sink
        self._told = told

    @property
    def view(self) -> memoryview:
        return self._sink.view

    @property
    def cancelled(self) -> bool:
        return self._sink.cancelled

    def landed(self, count_bytes: int) -> None:
        self._sink.landed(count_bytes)

    def broke_off(self) -> None:
        self._sink.broke_off()

    def from_peer(self) -> None:
        self._sink.from_peer()

    def found(self, version: ObjectVersion) -> None:
        self._told(version)
        self._sink.found(version)


class NodeOrigin:
    """The origin as one node sees it (origin.base.Origin)."""

    age_share = 0.0

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._origin = node.world.origin
        self._flying: list[tuple[ObjectVersion, ByteRange, Sink]] = []

    async def head(self, name: ObjectName, max_age_s: float = 0.0) -> ObjectVersion:
        version = await self._origin.head(name, max_age_s)
        await asyncio.sleep(self._node.world.setup.latency_s * self._node.world.rng.random() * 3)
        return version

    async def fetch(self, version: ObjectVersion, wanted: ByteRange, sink: Sink) -> None:
        with self._flight(version, wanted, sink):
            await self._origin.fetch(version, wanted, sink)

    async def probe(
        self, name: ObjectName, wanted: ByteRange, sink: ProbeSink, max_age_s: float = 0.0
    ) -> bool:
        with ExitStack() as exits:
            self._node.world.trace("probe", self._node.node_id, name.key, wanted.start, wanted.end)
            self._node.world.count("probed")

            def found(version: ObjectVersion) -> None:
                cut = ByteRange(wanted.start, min(wanted.end, version.size_bytes))
                exits.enter_context(self._flight(version, cut, sink))

            return await self._origin.probe(name, wanted, Watched(sink, found), max_age_s)

    @contextmanager
    def _flight(self, version: ObjectVersion, wanted: ByteRange, sink: Sink) -> Iterator[None]:
        """No two GETs of the same bytes at a time."""
        for other, taken, other_sink in self._flying:
            meet = wanted.start < taken.end and taken.start < wanted.end
            if meet and other.same_bytes(version) and not other_sink.cancelled:
                self._node.violate(f"two GETs at a time: {version} {taken} and {wanted}")
        flying = version, wanted, sink
        self._flying.append(flying)
        self._node.world.trace("get", self._node.node_id, version.etag, wanted.start, wanted.end)
        try:
            yield
        finally:
            self._flying = [one for one in self._flying if one is not flying]

    @asynccontextmanager
    async def stream(
        self, name: ObjectName, start: int, end: int | None
    ) -> AsyncIterator[BypassStream]:
        async with self._origin.stream(name, start, end) as stream:
            yield stream

    async def list(
        self, bucket: str, prefix: str, delimiter: str, token: str | None, limit_count: int
    ) -> Listing:
        return await self._origin.list(bucket, prefix, delimiter, token, limit_count)

    async def close(self) -> None:
        """Nothing to give back."""
