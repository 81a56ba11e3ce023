"""The read logic, without any I/O: generators that yield effects (effects.py).

Story of a read: the version first, from the client's memory, or from the keeper (the owner of block
0) together with what the range has of block 0; of a range that is known to have two blocks and more
the version alone, because the rest would wait for all of block 0. Then the rest, cut at block
borders, in one request per owner and 32 MiB, all at a time, all naming that version. Whoever fails
is replaced by the next owner, then by the origin (failover.py). The object changed meanwhile: the
whole read begins again, a bounded number of times, and last is one single GET, which cannot mix
versions.

Rules
- A read answers from exactly one version, first byte to last.
- An object without a strong ETag is read in one single GET, whatever the ranges.
- Retry.NEVER goes to the caller at once; nothing else does while somebody is left to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cachesvc.core.errors import (
    CacheError,
    NodeUnavailable,
    NotCacheable,
    ObjectChanged,
    RangeError,
)
from cachesvc.core.request import MAX_RANGES, ReadRequest, StatRequest
from cachesvc.core.ring import Member
from cachesvc.core.types import ObjectName, ObjectVersion, clamp
from cachesvc.wire import codec
from cachesvc.wire.codec import END_OF_OBJECT
from cachesvc_client.config import ClientConfig
from cachesvc_client.effects import AskOrigin, Forget, Reply, Steps, Target, Together
from cachesvc_client.failover import Failover
from cachesvc_client.receipt import same_version
from cachesvc_client.router import Router
from cachesvc_client.target import Range, Room, Span, spans
from cachesvc_client.versions import VersionCache

MAX_COVER_BYTES = 1 << 30


class Script:
    """The read logic of one client: what its reads share. Any thread may run its generators.

    passes: whether a member is on this host and passes files.
    """

    def __init__(
        self,
        router: Router,
        versions: VersionCache,
        config: ClientConfig,
        clock: Callable[[], float],
        passes: Callable[[Member], bool] = lambda _: False,
    ) -> None:
        self.router = router
        self.versions = versions
        self.config = config
        self.clock = clock
        self.passes = passes

    def stat(self, name: ObjectName, max_age_s: float | None = None) -> Steps[ObjectVersion]:
        """The current version of an object, believed for no longer than its keeper allows.

        Raises: ObjectNotFound, AccessDenied; another CacheError if nobody can be asked.
        """
        known = self.versions.get(name) if max_age_s is None else None
        if known is not None:
            return known
        ask = Failover(self, name)
        yield from ask.meet()
        reply = yield from ask.keeper(StatRequest(name, max_age_s), None, AskOrigin(name, None))
        yield from ask.catch_up()
        return reply.version

    def forget(self, names: Sequence[ObjectName]) -> Steps[None]:
        """Objects, one at least, were written: neither this client nor any member believes in a
        version of them.

        A member that is not reached, or known to be down, goes on believing for its `revalidate`.
        """
        for name in names:
            self.versions.forget(name)
        yield from Failover(self, names[0]).meet()
        yield Together([self._tell(member, names) for member in self.router.table.members])
        for name in names:  # nor what a member said before it was told
            self.versions.forget(name)

    def _tell(self, member: Member, names: Sequence[ObjectName]) -> Steps[None]:
        if not self.router.admit(member.node_id):
            return
        try:
            for group in codec.forget_groups(names):
                yield Forget(member, group)
        except NodeUnavailable as error:
            self.router.failed(member, str(error))
            raise
        except CacheError:
            self.router.succeeded(member)
            raise
        self.router.succeeded(member)

    def read(
        self,
        name: ObjectName,
        ranges: Sequence[Range],
        target: Target,
        pinned: ObjectVersion | None = None,
    ) -> Steps[ObjectVersion]:
        """Read ranges of an object into the target; returns the one version that they are of.

        pinned: that version or ObjectChanged.

        Raises: ObjectNotFound, AccessDenied, RangeError, ObjectChanged; another CacheError, which
        names both failures, if neither nodes nor origin can answer.
        """
        return (yield from _Read(self, name, ranges, target, pinned).steps())


class _Read:
    """One read on its way."""

    def __init__(
        self,
        script: Script,
        name: ObjectName,
        ranges: Sequence[Range],
        target: Target,
        pinned: ObjectVersion | None,
    ) -> None:
        self._script = script
        self._name = name
        self._ranges = ranges
        self._spans = spans(name, ranges)
        self._target = target
        self._pinned = pinned
        self._ask = Failover(script, name)

    def steps(self) -> Steps[ObjectVersion]:
        yield from self._ask.meet()
        version = yield from self._restarted()
        yield from self._ask.catch_up()
        return version

    def _restarted(self) -> Steps[ObjectVersion]:
        """Attempts until one succeeds; the last resort is one single GET."""
        max_age_s: float | None = None
        for _ in range(self._script.config.restart_count + 1):
            try:
                return (yield from self._attempt(max_age_s))
            except ObjectChanged:
                self._script.versions.forget(self._name)
                if self._pinned is not None:
                    raise
                max_age_s = 0.0
            except NotCacheable:
                break
        return (yield from self._single())

    def _attempt(self, max_age_s: float | None) -> Steps[ObjectVersion]:
        version, rest = self._pinned, self._spans
        if version is None and max_age_s is None:
            version = self._script.versions.get(self._name)
        if version is None:
            version, rest = yield from self._begin(max_age_s)
        wanted = self._clamped(version)
        if not rest or not wanted:
            self._target.begin(version)
            return version
        if not version.cacheable:
            return (yield from self._single())
        self._target.begin(version)
        size_bytes = version.size_bytes
        cut = [(start, min(end, size_bytes)) for start, end in rest if start < size_bytes]
        if cut:
            yield from self._ask.fetch(version, cut, self._target)
        return version

    def _begin(self, max_age_s: float | None) -> Steps[tuple[ObjectVersion, list[Span]]]:
        """The current version, and what is still to be read: not what came with it."""
        block_bytes = self._script.router.geometry.block_bytes
        first = [
            (start, min(end, block_bytes)) for start, end in self._spans if start < block_bytes
        ][:MAX_RANGES]
        origin = self._origin_first()
        large = bool(first) and 2 * block_bytes <= self._spans[0][1] < END_OF_OBJECT
        if not first or large:
            request = StatRequest(self._name, max_age_s)
            reply = yield from self._ask.keeper(request, None, origin)
        else:
            ranges = tuple(first)
            read = ReadRequest(self._name, ranges, max_age_s=max_age_s)
            reply = yield from self._ask.keeper(read, self._target, origin)
        if not reply.sources:
            return reply.version, self._spans
        if reply.direct:  # it was asked for everything
            return reply.version, []
        rest = [(max(s, block_bytes), e) for s, e in self._spans[: len(first)] if e > block_bytes]
        return reply.version, rest + self._spans[len(first) :]

    def _origin_first(self) -> AskOrigin:
        """How the origin is asked if no node can: one GET if that is all, else a HEAD."""
        if len(self._spans) == 1:
            start, end = self._spans[0]
            if end - start <= self._script.config.origin_part_bytes:
                return AskOrigin(self._name, None, start, end, self._target)
        return AskOrigin(self._name, None)

    def _clamped(self, version: ObjectVersion) -> int:
        """How many bytes are wanted of this version. Raises RangeError for a range beyond it."""
        size_bytes = version.size_bytes
        return sum(clamp(self._name, s, e, size_bytes).length_bytes for s, e in self._ranges)

    # -- the whole of it in one GET

    def _single(self) -> Steps[ObjectVersion]:
        if not self._spans:
            return (yield from self._nothing())
        start, end = self._spans[0][0], self._spans[-1][1]
        if len(self._spans) > 1 and end != END_OF_OBJECT and end - start > MAX_COVER_BYTES:
            raise NotCacheable(
                f"{self._name} has no strong ETag and is read in one GET; these ranges span"
                f" {end - start} bytes, {MAX_COVER_BYTES} is the most: read them one by one"
            )
        target = self._target if len(self._spans) == 1 else Room([(start, end)])
        stop = None if end == END_OF_OBJECT else end
        request = ReadRequest(self._name, ((start, stop),), self._pinned, bypass=True)
        origin = AskOrigin(self._name, self._pinned, start, stop, target)
        if self._pinned is not None:
            target.begin(self._pinned)
            self._target.begin(self._pinned)
        try:
            reply = yield from self._ask.keeper(request, target, origin)
        except RangeError:
            return (yield from self._nothing())
        self._clamped(reply.version)
        if isinstance(target, Room) and target is not self._target:
            self._spread(reply, target)
        return reply.version

    def _nothing(self) -> Steps[ObjectVersion]:
        """Nobody has any of these bytes: fine if the ranges are empty in the current version."""
        version = yield from self._script.stat(self._name, 0.0)
        if self._pinned is not None and not same_version(version, self._pinned):
            raise ObjectChanged(f"{self._name}: version {self._pinned.etag} is gone")
        if self._clamped(version):
            raise ObjectChanged(f"{self._name} changes faster than it can be read")
        self._target.begin(version)
        return version

    def _spread(self, reply: Reply, cover: Room) -> None:
        self._target.begin(reply.version)
        for start, end in self._spans:
            length_bytes = min(end, reply.version.size_bytes) - start
            if length_bytes > 0:
                piece = cover.view(start, length_bytes)
                self._target.view(start, length_bytes)[:] = piece
