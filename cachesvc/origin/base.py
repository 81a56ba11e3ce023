"""What an origin is: the object store behind us, or whatever stands in for it.

Rules: one GET is one `fetch`, or one `probe` where nothing is known of the object; it either lands
every byte of its range, of exactly one version, or raises; bytes land in order, so that a reader
may follow close behind. Failures are errors of `core.errors`, never short answers.

Implementations: `s3.S3Origin` (S3 and what speaks like it), `ring.RingOrigin` (the nodes of a ring,
and S3 behind them: a sidecar's), `memory.MemoryOrigin` (tests and the simulator).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion


class Sink(Protocol):
    """Where the bytes of one fetch land.

    Called from one thread at a time, which need not be the loop's.
    """

    @property
    def view(self) -> memoryview:
        """Writable, exactly as long as the range."""

    @property
    def cancelled(self) -> bool:
        """True once nobody wants the bytes: the fetch should stop soon."""

    def landed(self, count_bytes: int) -> None:
        """The first `count_bytes` bytes of `view` are the object's.

        Never decreases; after a retry it goes on.
        """

    def broke_off(self) -> None:
        """The bytes stopped short of the range; more may land later, or nothing. Called from the
        thread that lands them.
        """

    def from_peer(self) -> None:
        """What lands comes from another cache, and not from the object store."""


class ProbeSink(Sink, Protocol):
    """Where a probe lands: what it is and how long shows only when the answer's head has come."""

    def found(self, version: ObjectVersion) -> None:
        """What comes is of this version, with a strong ETag. Called once, before a byte lands; from
        now on `view` is as long as what the version has of the range.
        """


@dataclass(frozen=True, slots=True)
class BypassStream:
    """One origin GET under way: the version that the origin answered with, and the bytes as they
    come.
    """

    version: ObjectVersion
    wanted: ByteRange
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a listing, in key order."""

    versions: list[ObjectVersion]
    prefixes: list[str]
    next_token: str | None


class Origin(Protocol):
    """The one interface that decides what a node caches: S3, another ring, or memory.

    age_share: which part of the age that a version check may have this origin may use up, because
    others look at the object store for it; 0 if it looks itself, each time.
    """

    age_share: float

    async def head(self, name: ObjectName, max_age_s: float = 0.0, /) -> ObjectVersion:
        """The version that was current at some moment no earlier than `max_age_s` before the call.

        Raises: ObjectNotFound, AccessDenied, OriginError.
        """

    async def fetch(self, version: ObjectVersion, wanted: ByteRange, sink: Sink) -> None:
        """Land `wanted` of exactly `version` in the sink. Cancelling the call stops the transfer.

        Raises: ObjectChanged (412, or an answer of another version), ObjectNotFound, AccessDenied,
        Overloaded, OriginError once retries are spent. What has landed before an error is right all
        the same.
        """

    async def probe(
        self, name: ObjectName, wanted: ByteRange, sink: ProbeSink, max_age_s: float = 0.0, /
    ) -> bool:
        """One GET of what an object of unknown version has of `wanted`: tells the sink the version,
        as current as `head` would, and goes on as a `fetch` of it.

        False: nothing has landed, because the answer does not prove a cacheable version that has
        bytes of the range; `head` must tell.

        Raises: as `head` until the version is found, as `fetch` from then on.
        """

    def stream(
        self, name: ObjectName, start: int, end: int | None
    ) -> AbstractAsyncContextManager[BypassStream]:
        """One GET without If-Match, for what may not be cached. The chunks are exactly `[start,
        end)` cut to the object's end, or raise: never a short answer.

        Raises: ObjectNotFound, AccessDenied, RangeError (start beyond the end), OriginError.
        """

    async def list(
        self, bucket: str, prefix: str, delimiter: str, token: str | None, limit_count: int
    ) -> Listing:
        """Names and versions below a prefix.

        Raises: ObjectNotFound (no such bucket), AccessDenied, OriginError.
        """

    async def close(self) -> None:
        """Give back connections and threads. Fetches under way fail."""
