"""What a client has at work in one process: its ring, its connections, its threads.

Rules: belongs to one fork generation (forks.py) and never crosses a fork; thread-safe; made without
I/O and without threads. Hello is said when the first read needs a ring, and again when a node's
epoch differs (meeting.py).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from cachesvc.core.errors import CacheError, NodeUnavailable, Retry
from cachesvc.core.request import ReadRequest
from cachesvc.core.ring import Member, MemberTable
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion, clamp
from cachesvc_client import forks, rpc
from cachesvc_client.config import ClientConfig
from cachesvc_client.drive import Crew, run
from cachesvc_client.effects import Ask, AskOrigin, Effect, Forget, Reply, Steps, Together
from cachesvc_client.fallback import Fallback
from cachesvc_client.hello import Welcome
from cachesvc_client.lane import Lane
from cachesvc_client.meeting import Meeting
from cachesvc_client.router import Router
from cachesvc_client.script import Script
from cachesvc_client.target import Place, Room
from cachesvc_client.verified import Verified
from cachesvc_client.versions import VersionCache

DIRECT = "direct"  # of `sources`: S3 was asked by this client itself

T = TypeVar("T")
log = logging.getLogger("cachesvc_client")


class ClientClosed(CacheError, ValueError):
    """The client was closed, before the call or while it ran."""

    retry = Retry.NEVER


class Engine:
    """Performs the effects of reads. `inherited`: of a parent process, for what that knew."""

    def __init__(self, config: ClientConfig, inherited: Engine | None = None) -> None:
        self.config = config
        clock = time.monotonic
        self.router = Router(
            MemberTable(),
            Geometry(),
            clock=clock,
            owner_tries=config.owner_tries,
            eject_ms=config.eject_ms,
            eject_max_ms=config.eject_max_ms,
        )
        self.sources: Counter[str] = Counter()
        endpoints: Sequence[str] = config.endpoints
        self.verified: Verified = Verified(inherited.verified if inherited else None)
        self._transport: Lane | rpc.Rpc = Lane(config, self.verified)
        if config.grpc and rpc.usable():
            self._transport = rpc.Rpc(config)
        elif config.grpc:  # forked from a process that used gRPC: its members, over the lane
            table = inherited.router.table if inherited else MemberTable()
            endpoints = [member.lane_address for member in table.members]
        self._meeting = Meeting(config, self.router, self._transport, endpoints)
        versions = VersionCache(config.version_cache_count, clock)
        self.script = Script(self.router, versions, config, clock, self._transport.passes)
        self._origin = Fallback(config.origin, config.parallel_count, config.origin_silence_ms)
        self._crew = Crew(config.parallel_count)
        self._counting = Lock()
        self._warned = False
        self._closed = False
        forks.mine(self)

    def run(self, steps: Steps[T], tally: Counter[str] | None = None) -> T:
        """Drive the read logic to its end. tally: is added to as `sources` is."""
        self._check_open()
        return run(steps, self._perform if tally is None else partial(self._perform, tally=tally))

    def read_block(
        self,
        name: ObjectName,
        pinned: ObjectVersion | None,
        start: int,
        view: memoryview,
        tally: Counter[str] | None = None,
    ) -> int | None:
        """Fill the view with the bytes from `start` on, if they are of one block, of a version that
        is known, by asking its first owner at once: what a hot read comes to, without the steps
        that lead there. Returns how many bytes there were; None: they are to be read as ever.

        Raises: what Script.read raises.
        """
        router, end = self.router, start + len(view)
        version = pinned or self.script.versions.get(name)
        if version is None or not version.cacheable or end > version.size_bytes:
            return None
        block_bytes = router.geometry.block_bytes
        index = start // block_bytes
        if not view or start < 0 or end > (index + 1) * block_bytes:
            return None
        member = router.first_owner(name, index)
        if member is None:
            return None
        request, asked_s = ReadRequest(name, ((start, end),), version), time.monotonic()
        try:
            reply: Reply = self._perform(Ask(member, request, Place(start, view)), tally)
        except NodeUnavailable as error:
            router.failed(member, str(error), time.monotonic() - asked_s)
            return None
        except CacheError as error:
            room = Room([(start, end)], view)
            steps = self.script.read(name, [(start, end)], room, pinned)
            read = run(steps, _told(member, request, error, partial(self._perform, tally=tally)))
            return clamp(name, start, end, read.size_bytes).length_bytes
        if reply.epoch not in (0, router.epoch):
            with suppress(CacheError):  # the read itself is over, and went well
                self._meeting.refresh(member)
        return len(view)

    def meet(self) -> Welcome:
        """Make sure that the ring is known; the last Welcome.

        Raises: the CacheError that kept every endpoint from telling.
        """
        self._check_open()
        self._meeting.refresh(None)
        assert self._meeting.welcome is not None
        return self._meeting.welcome

    def ask_origin(self, where: str, operation: str, parameters: Mapping[str, Any]) -> Any:
        """The contract of CacheClient.ask_origin."""
        self._check_open()
        return self._origin.call(where, operation, **parameters)

    def close(self) -> None:
        """Reads under way in other threads raise ClientClosed."""
        self._closed = True
        self._transport.close()
        self._origin.close()
        self._crew.close()

    # -- effects

    def _perform(self, effect: Effect, tally: Counter[str] | None = None) -> Any:
        self._check_open()
        try:
            if isinstance(effect, Ask):
                reply = self._transport.ask(
                    effect.member, effect.request, effect.target, self.router.epoch
                )
                for source, count_bytes in reply.sources.items():
                    self._count(source.name.lower(), count_bytes, tally)
                return reply
            if isinstance(effect, AskOrigin):
                self._warn(effect.why)
                reply = self._origin.ask(effect)
                self._count(DIRECT, sum(reply.sources.values()), tally)
                return reply
            if isinstance(effect, Together):
                return self._crew.together(effect.steps, partial(self._perform, tally=tally))
            if isinstance(effect, Forget):
                self._transport.forget(effect.member, effect.names)
            else:
                self._meeting.refresh(effect.member)
            return None
        except CacheError as error:
            if self._closed and not isinstance(error, ClientClosed):
                raise ClientClosed("this CacheClient was closed during the call") from error
            raise

    def _warn(self, why: CacheError | None) -> None:
        """Say once that the cache does not work, since nothing else would show it."""
        if self._meeting.endpoints and not self._warned:
            self._warned = True
            said = why or self._meeting.trouble or self.router.trouble()
            log.warning("cachesvc: no node could answer (%s); reading the origin itself", said)

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("this CacheClient is closed")

    def _count(self, source: str, count_bytes: int, tally: Counter[str] | None) -> None:
        with self._counting:
            self.sources[source] += count_bytes
            if tally is not None:
                tally[source] += count_bytes


def _told(
    member: Member, request: ReadRequest, error: CacheError, perform: Callable[[Effect], Any]
) -> Callable[[Effect], Any]:
    """A driver that has asked the member this already: its first answer is the error that came."""
    waiting, asked = [error], (member, request)

    def performed(effect: Effect) -> Any:
        if waiting and isinstance(effect, Ask) and (effect.member, effect.request) == asked:
            raise waiting.pop()
        return perform(effect)

    return performed
