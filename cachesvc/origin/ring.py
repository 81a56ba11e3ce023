"""The ring of nodes as an Origin: what stands behind a sidecar. Behind the ring stands S3 itself.

Rules
- Whom to ask, in what order, and whom to leave alone for how long is the client's logic
  (cachesvc_client: router, failover, meeting); this is one more driver of it, on the event loop.
  So a ring that is gone costs a read nothing, and is found again when it is back.
- Bytes are believed once they match their checksums; what does not is asked for elsewhere. What has
  landed is never received again (arrival.py).
- Once the nodes say that S3 fails, and the logic's patience is over, S3 is not asked again here.
- Listings and what may not be cached are no business of the ring: S3 is asked.

Story: `head`, `fetch` and `probe` make the logic's steps; `_perform` does what they ask for: a
request to a node on a thread, which receives straight into the sink, or a call of S3's origin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from threading import Lock
from typing import Any, TypeVar

import structlog
from cachesvc_client.config import ClientConfig, configured
from cachesvc_client.connection import Connection
from cachesvc_client.drive import run_awaiting
from cachesvc_client.effects import Ask, AskOrigin, Effect, Refresh, Reply, Steps
from cachesvc_client.failover import Failover
from cachesvc_client.hello import Welcome
from cachesvc_client.lane import Lane
from cachesvc_client.meeting import Meeting
from cachesvc_client.router import Router
from cachesvc_client.script import Script
from cachesvc_client.verified import Verified
from cachesvc_client.versions import VersionCache

from cachesvc.aside import let_go
from cachesvc.core.errors import (
    CacheError,
    CorruptAnswer,
    NodeUnavailable,
    NotCacheable,
    OriginError,
    Overloaded,
    ProtocolError,
    RangeError,
    Retry,
    Unauthenticated,
)
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.ring import Member, MemberTable
from cachesvc.core.types import ByteRange, Geometry, ObjectName, ObjectVersion, Source
from cachesvc.metrics import Metrics
from cachesvc.origin.arrival import Arrival, Discovery, Onward
from cachesvc.origin.base import BypassStream, Listing, Origin, ProbeSink, Sink

AGE_SHARE = 0.6  # decision 19
CHECK_THREADS = 32  # beside those of fills, so that neither waits for the other
LOG_PAUSE_S = 5.0  # between two lines on how the ring is
MAX_CHECK_COUNT = 512  # version checks under way, those that wait for a thread included

log = structlog.get_logger(__name__)
T = TypeVar("T")


def ring_config(ring: str, token: str, max_gets: int, geometry: Geometry) -> ClientConfig:
    """How to reach a ring: HOST:PORT,... of any of its nodes; others are learned from them.
    geometry: of this side.

    Raises:
        ValueError: no address, or one that is not of a TCP lane.
    """
    if not ring or ring.startswith("grpc://") or "unix://" in ring:
        raise ValueError(f"{ring!r} is no ring: write the lanes of its nodes, HOST:PORT,...")
    return configured(
        ring,
        token=token,
        max_idle_sockets=max_gets,
        version_cache_count=0,
        origin_part_bytes=geometry.block_bytes,
    )


class _Use:
    """The connection that a fill thread uses for one request; `stop` ends it from elsewhere."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connection: Connection | None = None
        self._stopped = False

    def __call__(self, connection: Connection | None) -> None:
        with self._lock:
            if connection is not None and self._stopped:
                raise NodeUnavailable("nobody wants the answer any more")
            self._connection = connection

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._connection is not None:
                self._connection.abort()


class RingOrigin:
    """An `origin.base.Origin` over a ring. Belongs to one event loop; opens nothing before `start`
    or the first call.

    me: the sidecar's id, named in errors. behind: S3, closed by whoever made it. geometry: of this
    side; a ring with another one is not read. max_gets: fetches and probes at a time, at most.
    """

    age_share = AGE_SHARE

    def __init__(
        self,
        me: str,
        config: ClientConfig,
        geometry: Geometry,
        behind: Origin,
        metrics: Metrics,
        max_gets: int = 64,
    ) -> None:
        assert config.origin_part_bytes >= geometry.block_bytes, (
            f"origin_part_bytes is {config.origin_part_bytes}, a block {geometry.block_bytes}: what"
            " a fetch has left is asked of S3 as one part"
        )
        self._me = me
        self._geometry = geometry
        self._behind = behind
        self._metrics = metrics
        clock = time.monotonic
        self._router = Router(
            MemberTable(),
            geometry,
            clock=clock,
            owner_tries=config.owner_tries,
            eject_ms=config.eject_ms,
            eject_max_ms=config.eject_max_ms,
        )
        self._lane = Lane(config, Verified())
        self._meeting = Meeting(config, self._router, self._lane, config.endpoints, self._check)
        self._script = Script(self._router, VersionCache(0, clock), config, clock)
        self._fills = ThreadPoolExecutor(max_gets, thread_name_prefix="ring-fill")
        self._checks = ThreadPoolExecutor(CHECK_THREADS, thread_name_prefix="ring-check")
        self._check_count = 0
        self._uses: set[_Use] = set()
        self._closed = False
        self._failing: set[str] = set()  # members whose last answer was none
        self._lost = False  # the whole ring, as the log was told
        self._turned_s = float("-inf")  # when it was told

    @property
    def addresses(self) -> Sequence[str]:
        """The lanes of the ring's members, as far as any are known."""
        return [one.lane_address for one in self._router.table.members] or self._meeting.endpoints

    async def start(self) -> None:
        """Meet the ring now rather than at the first call. It need not be there.

        Raises:
            Unauthenticated: it is there, and wants another token.
        """
        try:
            await self._perform(Refresh(), self._checks)
        except Unauthenticated:
            raise
        except CacheError as error:
            log.warning("the ring was not met; reading the origin itself", why=str(error))

    async def head(self, name: ObjectName, max_age_s: float = 0.0) -> ObjectVersion:
        """See `Origin.head`. Also raises Overloaded."""
        if self._check_count >= MAX_CHECK_COUNT:
            raise Overloaded(
                f"{name}: {MAX_CHECK_COUNT} version checks are under way, the most (through the"
                f" sidecar {self._me})"
            )
        request, direct = StatRequest(name, max_age_s), AskOrigin(name, None)
        self._check_count += 1
        try:
            reply = await self._drive(
                name, lambda ask: ask.keeper(request, None, direct), self._checks
            )
        finally:
            self._check_count -= 1
        return reply.version

    async def fetch(self, version: ObjectVersion, wanted: ByteRange, sink: Sink) -> None:
        """See `Origin.fetch`. Also raises NotCacheable for a version without a strong ETag."""
        name, span = version.name, (wanted.start, wanted.end)
        if not version.cacheable:
            raise NotCacheable(f"{name}: ETag {version.etag!r} is not strong: use a bypass")
        arrival = Arrival(wanted, sink, version)
        await self._drive(name, lambda ask: ask.fetch(version, [span], arrival), self._fills)

    async def probe(
        self, name: ObjectName, wanted: ByteRange, sink: ProbeSink, max_age_s: float = 0.0
    ) -> bool:
        """See `Origin.probe`."""
        span, arrival = (wanted.start, wanted.end), Discovery(wanted, sink)
        request = ReadRequest(name, (span,), max_age_s=max_age_s)
        direct = AskOrigin(name, None, *span, arrival)
        try:
            await self._drive(name, lambda ask: ask.keeper(request, arrival, direct), self._fills)
        except (RangeError, NotCacheable):
            if arrival.version is not None:
                raise
        return arrival.version is not None

    def stream(
        self, name: ObjectName, start: int, end: int | None
    ) -> AbstractAsyncContextManager[BypassStream]:
        """See `Origin.stream`."""
        return self._behind.stream(name, start, end)

    async def list(
        self, bucket: str, prefix: str, delimiter: str, token: str | None, limit_count: int
    ) -> Listing:
        """See `Origin.list`."""
        return await self._behind.list(bucket, prefix, delimiter, token, limit_count)

    async def close(self) -> None:
        """Give back connections and threads. Fetches under way fail."""
        self._closed = True
        for use in self._uses:
            use.stop()
        self._lane.close()
        for threads in (self._checks, self._fills):
            await asyncio.to_thread(threads.shutdown, True, cancel_futures=True)

    # -- driving the client's logic

    async def _drive(
        self, name: ObjectName, make: Callable[[Failover], Steps[T]], threads: Executor
    ) -> T:
        """Run the steps of one request to their end. Errors name the sidecar. A token that the ring
        refuses is its own, and no fault of its clients: they are told to go on to S3.
        """
        try:
            steps = self._whole(Failover(self._script, name), make)
            return await run_awaiting(steps, lambda effect: self._perform(effect, threads))
        except Unauthenticated as error:
            self._turn(True, "the ring refuses the token of this sidecar", error)
            named: CacheError = OriginError(
                f"{name}: the ring refuses the token of the sidecar {self._me} ({error.message})"
            )
        except CacheError as error:
            named = type(error)(f"{error.message} (through the sidecar {self._me})")
        raise named  # and not from the other, whose traceback holds the sink's memory

    @staticmethod
    def _whole(ask: Failover, make: Callable[[Failover], Steps[T]]) -> Steps[T]:
        yield from ask.meet()
        value = yield from make(ask)
        yield from ask.catch_up()
        return value

    async def _perform(self, effect: Effect, threads: Executor) -> Any:
        """The contract of a driver (effects.py)."""
        if isinstance(effect, Ask):
            return await self._ask(effect, threads)
        if isinstance(effect, AskOrigin):
            return await self._ask_behind(effect)
        if isinstance(effect, Refresh):
            return await self._on_thread(lambda _: self._meeting.refresh(effect.member), threads)
        raise AssertionError("a block has one owner: nothing is asked of several at a time")

    async def _ask(self, effect: Ask, threads: Executor) -> Reply:
        arrival, request = effect.target, effect.request
        assert arrival is None or isinstance(arrival, Arrival), "a target of our own"
        if arrival is not None and isinstance(request, ReadRequest):
            if arrival.version is not None and not arrival.rest.length_bytes:
                return Reply(arrival.version)
            request = arrival.named(request)
        before_bytes = arrival.landed_bytes if arrival else 0
        count = self._metrics.ring_requests.labels
        op = "stat" if arrival is None else "read"
        try:
            reply = await self._on_thread(
                lambda use: self._answer(effect.member, request, arrival, use), threads
            )
        except CacheError as error:
            result = _result(error)
            count(op, result).inc()
            self._hear(effect.member, result)
            raise
        finally:
            if arrival is not None:
                self._metrics.ring_bytes.inc(arrival.landed_bytes - before_bytes)
        count(op, "answered").inc()
        self._hear(effect.member, "answered")
        return reply

    def _answer(
        self,
        member: Member,
        request: ReadRequest | StatRequest,
        arrival: Arrival | None,
        use: _Use,
    ) -> Reply:
        """What a node answers. On a thread: what lands is hashed and written to a disk."""
        try:
            reply = self._lane.ask(member, request, arrival, self._router.epoch, use)
        except BaseException:
            if arrival is not None:
                arrival.broke_off()
            raise
        if arrival is not None and arrival.version is not None:
            arrival.settled(arrival.rest.start, arrival.rest.length_bytes)
        return reply

    async def _ask_behind(self, effect: AskOrigin) -> Reply:
        if self._closed:
            raise OriginError(f"{effect.name}: the fetch was stopped: the origin was closed")
        if effect.patience_s <= 0 and isinstance(effect.why, OriginError):
            raise effect.why
        if all(one.node_id in self._failing for one in self._router.table.members):
            self._turn(True, "no node could answer; reading the origin itself", effect.why)
        arrival, name = effect.target, effect.name
        self._metrics.ring_requests.labels("read" if arrival else "stat", "around").inc()
        if arrival is None:
            return Reply(await self._behind.head(name))
        assert isinstance(arrival, Arrival), "a target of our own"
        if arrival.version is not None:
            await self._behind.fetch(arrival.version, arrival.rest, Onward(arrival))
        elif not await self._behind.probe(name, arrival.wanted, Onward(arrival)):
            raise NotCacheable(f"{name}: no version that can be cached")
        assert arrival.version is not None, "what was fetched has a version"
        return Reply(arrival.version, sources={Source.ORIGIN: arrival.landed_bytes})

    async def _on_thread(self, work: Callable[[_Use], T], threads: Executor) -> T:
        """What the work returns, from one of the threads. Comes back, cancelled or not, only when
        that has let go of the sink.
        """
        if self._closed:
            raise NodeUnavailable("the ring was closed")
        use = _Use()
        self._uses.add(use)
        try:
            future = threads.submit(work, use)
            await let_go(future, use.stop)
        finally:
            self._uses.discard(use)
        if future.cancelled():
            raise NodeUnavailable("the ring was closed")
        return future.result()

    def _hear(self, member: Member, result: str) -> None:
        """How it went with a node (`_result`)."""
        if result == "answered":
            self._failing.discard(member.node_id)
            self._turn(False, "the ring answers again", None)
        else:
            members = {one.node_id for one in self._router.table.members}
            self._failing = self._failing & members | {member.node_id}

    def _turn(self, lost: bool, event: str, why: CacheError | None) -> None:
        """Tell the log when the whole ring is lost, and when it is back: readers do not notice."""
        now_s = time.monotonic()
        if lost == self._lost or now_s < self._turned_s + LOG_PAUSE_S:
            return
        self._lost, self._turned_s = lost, now_s
        if lost:
            log.warning(event, why=str(why or self._meeting.trouble or self._router.trouble()))
        else:
            log.info(event)

    def _check(self, welcome: Welcome) -> None:
        if welcome.geometry != self._geometry:
            raise ProtocolError(
                f"the ring of {welcome.node_id} has other blocks than this sidecar: upgrade the"
                " older of them"
            )
        if any(member.node_id == self._me for member in welcome.table.members):
            raise ProtocolError(f"{self._me} is a member of its own ring: give another --ring")


def _result(error: CacheError) -> str:
    if isinstance(error, CorruptAnswer | ProtocolError):
        return "wrong"
    if isinstance(error, NodeUnavailable):
        return "unavailable"
    refused = error.retry is Retry.ELSEWHERE or isinstance(error, Unauthenticated)
    return "error" if refused else "answered"
