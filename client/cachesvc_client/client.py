"""The client: byte ranges of S3 objects through the cache, and from S3 itself if the cache fails.

Rules: importing and making a client does nothing: no I/O, no threads. One client may be used from
any number of threads, pickled (its configuration travels), and used on in forked children, whose
parent goes on too. A fault of the cache is never a fault of the caller, and never a wrong byte.

Story: a call becomes a generator of script.py and a target for its bytes; the engine of this
process drives it. The engine is made at the first call, and again at the first call after a fork.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import index
from typing import Any, Self, TypeVar

from cachesvc.core.errors import CacheError
from cachesvc.core.ring import MemberTable
from cachesvc.core.types import ObjectName, ObjectVersion, clamp
from cachesvc_client import forks
from cachesvc_client.config import ClientConfig, configured
from cachesvc_client.effects import Steps
from cachesvc_client.engine import ClientClosed, Engine
from cachesvc_client.fallback import check_settings
from cachesvc_client.hello import Welcome
from cachesvc_client.pinned import PinnedObject
from cachesvc_client.region import Canvas, EmptyRegion, Region
from cachesvc_client.script import Script
from cachesvc_client.target import Range, Room, new_bytes, spans

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What is known of an object: its size in bytes, its ETag with quotes, its time of change."""

    size: int
    etag: str
    last_modified: datetime


class CacheClient:
    """Reads objects, named s3://bucket/key, through the nodes of a cluster.

    endpoint: "host:port,host:port" (TCP lane), "unix:///path" (a node on this host, and the others
    over TCP) or "grpc://host:port"; default CACHESVC_ENDPOINT.
    origin: where to read if no node can answer, a dict of endpoint_url and the usual AWS settings;
    default the usual AWS chain. token: the cluster's shared secret; default CACHESVC_TOKEN.
    settings: the other fields of ClientConfig.

    All reads raise ObjectNotFound, AccessDenied, RangeError, InvalidKey, ObjectChanged, or another
    CacheError (an OSError) if neither nodes nor origin can answer; ClientClosed after `close`.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        origin: Mapping[str, Any] | None = None,
        token: str | None = None,
        **settings: Any,
    ) -> None:
        check_settings(origin)
        self._init(configured(endpoint, origin=origin, token=token, **settings))

    def _init(self, config: ClientConfig) -> None:
        self.config = config
        self._engine: Engine | None = None
        self._generation = forks.generation
        self._closed = False

    def stat(self, uri: str) -> ObjectStat:
        """Size, ETag and time of change of an object."""
        name = ObjectName.parse(uri)
        version = self._run(lambda script: script.stat(name))
        modified = datetime.fromtimestamp(version.last_modified_ms / 1000, UTC)
        return ObjectStat(version.size_bytes, version.etag, modified)

    def read(self, uri: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `[start, end)`, cut to the object as a slice would be; end None is its end."""
        return self.read_ranges(uri, [(start, end)])[0]

    def readinto(self, uri: str, buffer: Any, start: int = 0) -> int:
        """Fill a writable buffer with the bytes from `start` on; returns how many there were.

        What the buffer holds beyond that number, or after an error, is undefined.
        """
        name = ObjectName.parse(uri)
        return self._readinto(name, None, index(start), _writable(buffer))

    def read_ranges(self, uri: str, ranges: Sequence[Range]) -> list[bytes]:
        """Several ranges of one version of an object, in the order given; they may overlap."""
        name = ObjectName.parse(uri)
        wanted = [(index(s), None if e is None else index(e)) for s, e in ranges]
        return self._read(name, None, wanted)

    def open(self, uri: str, mode: str = "rb") -> io.BufferedReader:
        """The object as a binary file: buffered, seekable, pinned to its present version.

        Raises:
            ValueError: the mode is not for reading bytes.
        """
        if mode not in ("rb", "br"):
            raise ValueError(f"mode {mode!r}: a CacheClient reads bytes; write by fsspec")
        return self.pin(uri).file()

    def pin(self, uri: str) -> PinnedObject:
        """The object's present version, to be read in several steps that all see the same bytes."""
        name = ObjectName.parse(uri)
        return PinnedObject(self, self._run(lambda script: script.stat(name)))

    def begin(
        self, uri: str, start: int, end: int, tally: Counter[str] | None = None
    ) -> tuple[PinnedObject, bytes]:
        """Bytes `[start, end)`, cut to the object, with the version that they are of, from which to
        read on: `pin` and its first `read` in one. tally: as of PinnedObject.read.
        """
        name = ObjectName.parse(uri)
        room = Room(spans(name, [(start, end)]))
        version = self._run(lambda script: script.read(name, [(start, end)], room), tally)
        cut = clamp(name, start, end, version.size_bytes)
        return PinnedObject(self, version), room.result(cut.start, cut.end)

    def map(self, uri: str, start: int = 0, end: int | None = None) -> Region | EmptyRegion:
        """Bytes `[start, end)` as one read-only buffer in memory, of one version: see Region.

        Blocks that the node behind a unix:// endpoint has, or fills, are mapped where they are: all
        processes of the host share one copy. That needs a start that is a multiple of the system's
        page (4,096 bytes); from any other start, and from other nodes or S3, bytes are received
        into memory of this process. Everything is there and checked when the call returns.

        Raises: RegionRefused (also a MemoryError) if it passes a limit of this process, before
        anything is fetched; else as `read`.
        """
        name, first = ObjectName.parse(uri), index(start)
        beyond = None if end is None else index(end)
        wanted: list[Range] = [(first, beyond)]
        spans(name, wanted)
        version = self._run(lambda script: script.stat(name))
        canvas = Canvas(name, first, beyond, self._live().router.geometry.block_bytes)
        canvas.check(version)
        try:
            self._run(lambda script: script.read(name, wanted, canvas))
            return canvas.finish()
        finally:
            canvas.discard()

    def invalidate(self, uri: str) -> None:
        """The object was changed: what begins to read it from now on, here or through any node,
        sees what is there now. Never an error: a node that is not reached goes on believing for its
        own `revalidate`, as other clients do.
        """
        name = ObjectName.parse(uri)
        with suppress(CacheError):
            self._run(lambda script: script.forget([name]))
            self._run(lambda script: script.stat(name, 0.0))

    def invalidate_many(self, uris: Sequence[str]) -> None:
        """As `invalidate`, of many objects in one request to each node; S3 is asked by whoever
        reads them next, and not now.
        """
        names = [ObjectName.parse(uri) for uri in uris]
        if names:
            with suppress(CacheError):
                self._run(lambda script: script.forget(names))

    def forget(self) -> None:
        """Ask the nodes for the version of every object that is read from now on."""
        self._live().script.versions.clear()

    @property
    def block_bytes(self) -> int:
        """The size of the cluster's blocks, as far as it is known yet."""
        return self._live().router.geometry.block_bytes

    def ask_origin(self, uri: str, operation: str, **parameters: Any) -> Any:
        """An operation of S3 by botocore's name of it, such as "list_objects_v2", at the origin
        itself: for what is no read. uri: for messages.

        Returns botocore's answer; raises ObjectNotFound, AccessDenied, ObjectChanged where a
        condition does not hold, InvalidKey, else OriginError.
        """
        return self._live().ask_origin(uri, operation, parameters)

    def ring(self) -> MemberTable:
        """The members of the cluster. Raises CacheError if no endpoint tells."""
        engine = self._live()
        engine.meet()
        return engine.router.table

    def greeting(self) -> Welcome:
        """What the node at the endpoint says of itself and its cluster; of several endpoints, that
        which was asked last. Raises CacheError if none tells.
        """
        return self._live().meet()

    def where(self, uri: str) -> list[tuple[int, list[str]]]:
        """Which nodes own each block of an object: (block index, node ids in order)."""
        size_bytes = self.stat(uri).size
        name = ObjectName.parse(uri)
        self.ring()
        router = self._live().router
        count = -(-size_bytes // router.geometry.block_bytes)
        return [
            (block, [member.node_id for member in router.owners(name, block)])
            for block in range(count)
        ]

    def sources(self) -> dict[str, int]:
        """Bytes read in this process by where they came from: disk, joined, peer, origin, bypass
        as the nodes say, direct from S3 itself.
        """
        return dict(self._live().sources)

    def close(self) -> None:
        """Let go of connections and threads; calls under way elsewhere raise ClientClosed."""
        self._closed = True
        if self._engine is not None and self._generation == forks.generation:
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[ClientConfig], CacheClient], tuple[ClientConfig]]:
        return _revived, (self.config,)

    def __repr__(self) -> str:
        return f"CacheClient({','.join(self.config.endpoints)!r})"

    # -- inside

    def _read(
        self,
        name: ObjectName,
        pinned: ObjectVersion | None,
        ranges: Sequence[Range],
        tally: Counter[str] | None = None,
    ) -> list[bytes]:
        if not ranges:
            return []
        if len(ranges) == 1 and (data := self._block(name, pinned, *ranges[0], tally)) is not None:
            return [data]
        room = Room(spans(name, ranges))
        version = self._run(lambda script: script.read(name, ranges, room, pinned), tally)
        cut = [clamp(name, start, end, version.size_bytes) for start, end in ranges]
        return [room.result(one.start, one.end) for one in cut]

    def _block(
        self,
        name: ObjectName,
        pinned: ObjectVersion | None,
        start: int,
        end: int | None,
        tally: Counter[str] | None,
    ) -> bytes | None:
        engine = self._live()
        if end is None or not 0 < end - start <= engine.router.geometry.block_bytes:
            return None
        data, view = new_bytes(end - start)
        count = engine.read_block(name, pinned, start, view, tally)
        if count is None:
            return None
        return data if data and count == len(data) else bytes(view[:count])

    def _readinto(
        self, name: ObjectName, pinned: ObjectVersion | None, start: int, view: memoryview
    ) -> int:
        count = self._live().read_block(name, pinned, start, view)
        if count is not None:
            return count
        ranges: list[Range] = [(start, start + len(view))]
        room = Room(spans(name, ranges), view)
        version = self._run(lambda script: script.read(name, ranges, room, pinned))
        return clamp(name, start, start + len(view), version.size_bytes).length_bytes

    def _run(self, make: Callable[[Script], Steps[T]], tally: Counter[str] | None = None) -> T:
        engine = self._live()
        return engine.run(make(engine.script), tally)

    def _live(self) -> Engine:
        """The engine of this process, made if there is none."""
        if self._closed:
            raise ClientClosed("this CacheClient is closed")
        if self._generation == forks.generation and (engine := self._engine) is not None:
            return engine
        with forks.lock:
            if self._engine is None or self._generation != forks.generation:
                inherited = self._engine
                self._engine = Engine(self.config, inherited)
                self._generation = forks.generation
            return self._engine


def _revived(config: ClientConfig) -> CacheClient:
    client = CacheClient.__new__(CacheClient)
    client._init(config)
    return client


def _writable(buffer: Any) -> memoryview:
    view = memoryview(buffer)
    if view.readonly:
        raise TypeError("readinto needs a writable buffer, not a read-only one")
    return view.cast("B") if view.nbytes else memoryview(bytearray())
