"""The read logic without any I/O: a world of dictionaries answers the effects, in the open.

`World` is the driver: nodes and origin share one object store, every effect is written down, and a
script of troubles says which question fails, and how.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cachesvc_client.config import ClientConfig
from cachesvc_client.drive import run
from cachesvc_client.effects import (
    Ask,
    AskOrigin,
    Effect,
    Forget,
    Refresh,
    Reply,
    Target,
    Together,
)
from cachesvc_client.router import Router
from cachesvc_client.script import Script
from cachesvc_client.target import Range, Room, spans
from cachesvc_client.versions import VersionCache

from cachesvc.core.errors import (
    CacheError,
    NodeUnavailable,
    NotCacheable,
    ObjectChanged,
    ObjectNotFound,
    RangeError,
)
from cachesvc.core.request import ReadRequest
from cachesvc.core.ring import Member, MemberTable, Ring
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion, Source, clamp

GEOMETRY = Geometry(block_bytes=1024, page_bytes=128, extent_min_bytes=256, extent_max_bytes=512)
NAME = ObjectName("b", "k")
TABLE = MemberTable([Member(f"n{number}", f"h{number}:1") for number in range(4)])
RING = Ring(TABLE)
OLD, NEW = random.Random(1).randbytes(6000), random.Random(2).randbytes(5000)

Trouble = Callable[[Effect], CacheError | None]


def owner(block: int, rank: int = 0) -> str:
    return RING.owners(NAME, block, 4)[rank].node_id


@dataclass
class World:
    """Answers effects about one object, and remembers them."""

    data: bytes | None = OLD
    etag: str = '"old"'
    fresh_for_s: float = 0.0
    known: bool = True
    trouble: Trouble = lambda _effect: None
    epoch: int = TABLE.epoch
    before: Callable[[Effect], None] = lambda _effect: None
    now_s: float = 0.0
    log: list[Effect] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = ClientConfig(("h:1",), ask_max_bytes=2048, origin_part_bytes=1024, **self.settings)
        table = TABLE if self.known else MemberTable()
        self.router = Router(
            table,
            GEOMETRY,
            clock=lambda: self.now_s,
            owner_tries=config.owner_tries,
            eject_ms=1000,
            eject_max_ms=30_000,
        )
        versions = VersionCache(config.version_cache_count, lambda: self.now_s)
        self.script = Script(self.router, versions, config, lambda: self.now_s)

    # -- what tests ask

    def read(self, *ranges: Range, pinned: ObjectVersion | None = None) -> list[bytes]:
        self.log.clear()
        room = Room(spans(NAME, ranges))
        version = run(self.script.read(NAME, ranges, room, pinned), self.perform)
        cut = [clamp(NAME, start, end, version.size_bytes) for start, end in ranges]
        return [room.result(one.start, one.end) for one in cut]

    def asked(self) -> list[str]:
        """Who was asked, in order, with what."""
        return [describe(effect) for effect in self.log]

    @property
    def version(self) -> ObjectVersion:
        if self.data is None:
            raise ObjectNotFound(f"{NAME}: not here")
        return ObjectVersion(NAME, self.etag, len(self.data))

    # -- the driver

    def perform(self, effect: Effect) -> Any:
        if isinstance(effect, Together):
            return [self.outcome(steps) for steps in effect.steps]
        self.log.append(effect)
        self.before(effect)
        problem = self.trouble(effect)
        if problem is not None:
            self.scribble(effect)
            raise problem
        if isinstance(effect, Refresh):
            self.router.adopt(TABLE)
            return None
        if isinstance(effect, Forget):
            return None
        if isinstance(effect, AskOrigin):
            return self.from_origin(effect)
        return self.from_node(effect)

    def scribble(self, effect: Effect) -> None:
        """What fails may have left anything in the target."""
        if not isinstance(effect, Ask) or effect.target is None or self.data is None:
            return
        request = effect.request
        assert isinstance(request, ReadRequest)
        if request.version is None:
            effect.target.begin(self.version)
        size_bytes = (request.version or self.version).size_bytes
        for start, end in request.ranges:
            stop = min(size_bytes, size_bytes if end is None else end)
            if stop > start:
                effect.target.view(start, stop - start)[:] = b"?" * (stop - start)

    def outcome(self, steps: Any) -> Any:
        try:
            return run(steps, self.perform)
        except CacheError as error:
            return error

    def from_node(self, ask: Ask) -> Reply:
        version, request = self.version, ask.request
        if not isinstance(request, ReadRequest):
            return Reply(version, self.fresh_for_s, epoch=self.epoch)
        if request.version is not None and not request.version.same_bytes(version):
            raise ObjectChanged(f"{NAME}: changed")
        if not request.bypass and not version.cacheable:
            if request.version is not None:
                raise NotCacheable(f"{NAME}: no strong ETag")
            return Reply(version, self.fresh_for_s, epoch=self.epoch)
        source = Source.BYPASS if request.bypass else Source.DISK
        count = self.fill(ask.target, request.ranges, request.version)
        sources = {source: count} if count else {}
        fresh_for_s = 0.0 if request.bypass else self.fresh_for_s
        return Reply(version, fresh_for_s, sources, self.epoch)

    def from_origin(self, ask: AskOrigin) -> Reply:
        version = self.version
        if ask.target is None:
            return Reply(version)
        if ask.version is not None and not ask.version.same_bytes(version):
            raise ObjectChanged(f"{NAME}: changed")
        if ask.start >= version.size_bytes:
            raise RangeError(f"{NAME}: 416")
        count = self.fill(ask.target, [(ask.start, ask.end)], ask.version)
        return Reply(version, sources={Source.ORIGIN: count})

    def fill(
        self, target: Target | None, ranges: Sequence[Range], pinned: ObjectVersion | None
    ) -> int:
        assert target is not None
        version, data = self.version, self.data or b""
        if pinned is None:
            target.begin(version)
        wanted = [clamp(NAME, start, end, len(data)) for start, end in ranges]
        for one in wanted:
            if one.length_bytes:
                target.view(one.start, one.length_bytes)[:] = data[one.start : one.end]
        return sum(one.length_bytes for one in wanted)


def describe(effect: Effect) -> str:
    if isinstance(effect, Ask):
        request = effect.request
        if not isinstance(request, ReadRequest):
            return f"{effect.member.node_id} stat"
        words = [effect.member.node_id, "bypass" if request.bypass else "read"]
        words += ["verify"] if request.verify else []
        return " ".join(words)
    if isinstance(effect, AskOrigin):
        return "origin head" if effect.target is None else f"origin {effect.start}-{effect.end}"
    return f"{effect.member.node_id} forget" if isinstance(effect, Forget) else "refresh"


def failing(*node_ids: str, error: type[CacheError] = NodeUnavailable) -> Trouble:
    def trouble(effect: Effect) -> CacheError | None:
        if isinstance(effect, Ask | Forget) and effect.member.node_id in node_ids:
            return error(f"{effect.member.node_id} is in trouble")
        return None

    return trouble


def everything(node: type[CacheError], origin: type[CacheError] | None = None) -> Trouble:
    def trouble(effect: Effect) -> CacheError | None:
        if isinstance(effect, Ask | Refresh):
            return node("no node")
        return origin("no origin") if origin and isinstance(effect, AskOrigin) else None

    return trouble


def in_turns(steps: Sequence[Any], perform: Callable[[Effect], Any]) -> list[Any]:
    """Several generators side by side: each takes one effect in its turn."""
    outcomes: list[Any] = [None] * len(steps)
    waiting = {number: next(one) for number, one in enumerate(steps)}
    while waiting:
        for number, effect in list(waiting.items()):
            try:
                if isinstance(effect, Together):
                    result: Any = in_turns(effect.steps, perform)
                else:
                    result = perform(effect)
            except CacheError as error:
                move = (steps[number].throw, error)
            else:
                move = (steps[number].send, result)
            try:
                waiting[number] = move[0](move[1])
            except StopIteration:
                del waiting[number]
            except CacheError as error:
                outcomes[number] = error
                del waiting[number]
    return outcomes
