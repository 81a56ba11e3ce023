"""An Origin in memory, for tests and the simulator.

Rules: no I/O, no clock, no thread; runs on any asyncio loop, on virtual time too; every run with
the same calls does the same. Bytes of one GET are those of the version that it began with, as S3
promises, whatever is put meanwhile.

Story: tests put objects and read through the cache; `log` and `gets` tell what the origin was
asked, `peak_count` how much at once. Faults come from outside: `before` is called ahead of every
operation and may raise, wait, or return a Fault that cuts a GET short.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import blake2b

from cachesvc.core.errors import NotCacheable, ObjectChanged, ObjectNotFound, OriginError
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion, clamp
from cachesvc.origin.base import BypassStream, Listing, ProbeSink, Sink

_EPOCH_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Fault:
    """What a GET shall suffer. cut_after_bytes: so many land, then it fails with OriginError."""

    cut_after_bytes: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the origin. op: head, get, stream or list. wanted and etag: of a get."""

    op: str
    name: ObjectName
    etag: str = ""
    wanted: ByteRange | None = None


Before = Callable[[str, ObjectName, ByteRange | None], Fault | Awaitable[Fault | None] | None]


class MemoryOrigin:
    """Objects in a dict. `put` and `delete` act at once, from the loop's thread.

    chunk_bytes: how much lands before the loop runs again. chunk_pause_s: what each chunk takes, on
    the loop's clock.
    """

    age_share = 0.0

    def __init__(
        self,
        chunk_bytes: int = 256 << 10,
        chunk_pause_s: float = 0.0,
        before: Before | None = None,
    ) -> None:
        if chunk_bytes < 1:
            raise ValueError(f"chunk_bytes is {chunk_bytes}: give 1 or more")
        self.before = before
        self.log: list[Asked] = []
        self.active_count = 0
        self.peak_count = 0
        self.landed_bytes = 0
        self._chunk_bytes = chunk_bytes
        self._chunk_pause_s = chunk_pause_s
        self._objects: dict[ObjectName, tuple[ObjectVersion, bytes]] = {}
        self._buckets: set[str] = set()
        self._put_count = 0
        self._closed = False

    @property
    def gets(self) -> list[Asked]:
        """The GETs so far, in order."""
        return [asked for asked in self.log if asked.op == "get"]

    def put(self, name: ObjectName, data: bytes, etag: str | None = None) -> ObjectVersion:
        """Store an object, with an ETag that no other put gives (or the one that is given, for odd
        ones).
        """
        self._put_count += 1
        if etag is None:
            etag = f'"{blake2b(data, digest_size=8).hexdigest()}-{self._put_count}"'
        modified_ms = _EPOCH_MS + self._put_count * 1000
        version = ObjectVersion(name, etag, len(data), modified_ms)
        self._objects[name] = version, bytes(data)
        self._buckets.add(name.bucket)
        return version

    def delete(self, name: ObjectName) -> None:
        """Remove an object; one that is not there is no error, as in S3."""
        self._objects.pop(name, None)

    async def head(self, name: ObjectName, _max_age_s: float = 0.0) -> ObjectVersion:
        """See `Origin.head`."""
        await self._asked(Asked("head", name))
        return self._find(name)[0]

    async def fetch(self, version: ObjectVersion, wanted: ByteRange, sink: Sink) -> None:
        """See `Origin.fetch`. Also raises NotCacheable for a version without a strong ETag."""
        assert 0 < wanted.length_bytes <= version.size_bytes - wanted.start, f"{wanted} {version}"
        if not version.cacheable:
            raise NotCacheable(f"{version.name}: ETag {version.etag!r} is not strong: use a bypass")
        with self._active():
            fault = await self._asked(Asked("get", version.name, version.etag, wanted))
            found, data = self._find(version.name)
            if not found.same_bytes(version):
                raise ObjectChanged(
                    f"{version.name}: version {version.etag} is gone from the origin, which has"
                    f" {found.etag}; ask for the version again"
                )
            await self._land(memoryview(data)[wanted.start : wanted.end], version.name, sink, fault)

    async def probe(
        self, name: ObjectName, wanted: ByteRange, sink: ProbeSink, _max_age_s: float = 0.0
    ) -> bool:
        """See `Origin.probe`. In the log it is a GET without an ETag."""
        assert wanted.length_bytes > 0, f"{wanted} of {name}"
        with self._active():
            fault = await self._asked(Asked("get", name, "", wanted))
            found, data = self._find(name)
            body = memoryview(data)[wanted.start : wanted.end]
            if not found.cacheable or not body:
                return False
            sink.found(found)
            await self._land(body, name, sink, fault)
            return True

    @contextmanager
    def _active(self) -> Iterator[None]:
        self.active_count += 1
        self.peak_count = max(self.peak_count, self.active_count)
        try:
            yield
        finally:
            self.active_count -= 1

    async def _land(
        self, body: memoryview, name: ObjectName, sink: Sink, fault: Fault | None
    ) -> None:
        assert len(sink.view) == len(body), f"{name}: the sink has another length"
        until = len(body) if fault is None else min(fault.cut_after_bytes, len(body))
        position = 0
        try:
            while position < until:
                await asyncio.sleep(self._chunk_pause_s)
                if sink.cancelled or self._closed:
                    by = (
                        "the origin was closed"
                        if self._closed
                        else "nobody wants the bytes any more"
                    )
                    raise OriginError(f"{name}: the fetch was stopped: {by}")
                count = min(self._chunk_bytes, until - position)
                sink.view[position : position + count] = body[position : position + count]
                position += count
                self.landed_bytes += count
                sink.landed(position)
        finally:
            if position < len(body):
                sink.broke_off()
        if fault is not None:
            raise OriginError(f"{name}: {until} of {len(body)} bytes came from the origin: cut")

    @asynccontextmanager
    async def stream(
        self, name: ObjectName, start: int, end: int | None
    ) -> AsyncIterator[BypassStream]:
        """See `Origin.stream`."""
        clamp(name, start, end, start)
        asked = None if end is None else ByteRange(start, end)
        fault = await self._asked(Asked("stream", name, "", asked))
        version, data = self._find(name)
        wanted = clamp(name, start, end, version.size_bytes)
        body = data[wanted.start : wanted.end]
        yield BypassStream(version, wanted, self._chunks(name, body, fault))

    async def _chunks(
        self, name: ObjectName, body: bytes, fault: Fault | None
    ) -> AsyncIterator[bytes]:
        until = len(body) if fault is None else min(fault.cut_after_bytes, len(body))
        for position in range(0, until, self._chunk_bytes):
            await asyncio.sleep(self._chunk_pause_s)
            yield body[position : min(position + self._chunk_bytes, until)]
        if fault is not None:
            raise OriginError(f"{name}: {until} of {len(body)} bytes came from the origin: cut")

    async def list(
        self, bucket: str, prefix: str, delimiter: str, token: str | None, limit_count: int
    ) -> Listing:
        """See `Origin.list`. The token is the last key or prefix of the page before."""
        await self._asked(Asked("list", ObjectName(bucket, prefix or "/")))
        if bucket not in self._buckets:
            raise ObjectNotFound(f"s3://{bucket}/{prefix}: the origin has no such bucket or key")
        versions: list[ObjectVersion] = []
        prefixes: list[str] = []
        last = token
        for name in sorted(self._objects, key=lambda name: name.key.encode()):
            if name.bucket != bucket or not name.key.startswith(prefix):
                continue
            entry = _rolled_up(name.key, prefix, delimiter)
            if last is not None and entry.encode() <= last.encode():
                continue
            if len(versions) + len(prefixes) >= max(1, limit_count):
                return Listing(versions, prefixes, last)
            if entry == name.key:
                versions.append(self._objects[name][0])
            else:
                prefixes.append(entry)
            last = entry
        return Listing(versions, prefixes, None)

    async def close(self) -> None:
        """Fetches under way fail."""
        self._closed = True

    async def _asked(self, asked: Asked) -> Fault | None:
        self.log.append(asked)
        if self._closed:
            raise OriginError(f"{asked.name}: the origin was closed")
        if self.before is None:
            return None
        answer = self.before(asked.op, asked.name, asked.wanted)
        return answer if answer is None or isinstance(answer, Fault) else await answer

    def _find(self, name: ObjectName) -> tuple[ObjectVersion, bytes]:
        found = self._objects.get(name)
        if found is None:
            raise ObjectNotFound(f"{name}: the origin has no such bucket or key")
        return found


def _rolled_up(key: str, prefix: str, delimiter: str) -> str:
    """The key, or the common prefix that stands for it in a listing."""
    cut = key.find(delimiter, len(prefix)) if delimiter else -1
    return key if cut < 0 else key[: cut + len(delimiter)]
