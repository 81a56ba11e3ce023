"""Where the answers of a ring arrive: one range of an origin's sink, whoever sends which part.

Rules
- Bytes are received straight into the sink, behind what has landed, which is never written again:
  readers have it already. So whoever is asked next is asked for the rest alone.
- They land once they have proven right, in order.

Story: the client's logic takes an Arrival for the target of its requests (effects.Target); `named`
makes a request that of the rest, and of the version that the first answer had.
"""

from __future__ import annotations

from dataclasses import replace

from cachesvc.core.errors import ProtocolError
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ByteRange, ObjectVersion
from cachesvc.origin.base import ProbeSink, Sink


class Arrival:
    """A range of a known version on its way to a sink.

    landed_bytes: how much of it is there, from its start. version None: not known yet (Discovery).
    """

    in_place = False

    def __init__(self, wanted: ByteRange, sink: Sink, version: ObjectVersion | None) -> None:
        self.wanted = wanted
        self.sink = sink
        self.version = version
        self.landed_bytes = 0

    @property
    def rest(self) -> ByteRange:
        return ByteRange(self.wanted.start + self.landed_bytes, self.wanted.end)

    def named(self, request: ReadRequest) -> ReadRequest:
        """The request, for what has not landed."""
        if self.version is None:
            return request
        rest = (self.rest.start, self.rest.end)
        return replace(request, ranges=(rest,), version=self.version, max_age_s=None)

    def begin(self, version: ObjectVersion) -> None:
        """The version of the answer to a request that named none."""
        raise ProtocolError(f"{version.name}: an answer names version {version.etag} anew")

    def view(self, start: int, length_bytes: int) -> memoryview:
        """The room for these bytes, which are none that have landed."""
        first = start - self.wanted.start
        end = first + length_bytes
        if not self.landed_bytes <= first <= end <= self.wanted.length_bytes:
            raise ProtocolError(f"bytes [{start}, {start + length_bytes}) were not asked for")
        return self.sink.view[first:end]

    def settled(self, start: int, length_bytes: int) -> None:
        """They are right, and next to what has landed."""
        end = start + length_bytes - self.wanted.start
        if end > self.landed_bytes:
            self.sink.from_peer()
            self.landed_bytes = end
            self.sink.landed(end)

    def broke_off(self) -> None:
        """Nothing more comes from the one who was asked."""
        self.sink.broke_off()

    def lay(self, _file: int, _offset: int, _start: int, _length_bytes: int, /) -> None:
        return None


class Discovery(Arrival):
    """A range of an object whose version the first answer tells."""

    def __init__(self, wanted: ByteRange, sink: ProbeSink) -> None:
        super().__init__(wanted, sink, None)
        self._probe_sink = sink

    def begin(self, version: ObjectVersion) -> None:
        """Tell the sink, unless the version cannot be cached, or has nothing of the range: then
        this stays without a version."""
        if version.cacheable and version.size_bytes > self.wanted.start:
            self.wanted = ByteRange(self.wanted.start, min(self.wanted.end, version.size_bytes))
            self.version = version
            self._probe_sink.found(version)

    def view(self, start: int, length_bytes: int) -> memoryview:
        if self.version is None:
            raise ProtocolError(f"bytes at {start} of a version that cannot have any")
        return super().view(start, length_bytes)


class Onward:
    """The sink for the rest of an arrival, when it comes from the object store itself."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._base_bytes = arrival.landed_bytes

    @property
    def view(self) -> memoryview:
        return self._arrival.sink.view[self._base_bytes :]

    @property
    def cancelled(self) -> bool:
        return self._arrival.sink.cancelled

    def broke_off(self) -> None:
        self._arrival.sink.broke_off()

    def from_peer(self) -> None:
        self._arrival.sink.from_peer()

    def found(self, version: ObjectVersion) -> None:
        """The version of an object that nobody knew (ProbeSink.found)."""
        self._arrival.begin(version)

    def landed(self, count_bytes: int) -> None:
        self._arrival.landed_bytes = self._base_bytes + count_bytes
        self._arrival.sink.landed(self._arrival.landed_bytes)
