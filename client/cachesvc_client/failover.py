"""One request until somebody answers it: next owner, then the origin, then those thought dead.

Rules
- Only NodeUnavailable ejects a node; one that answers, be it with an error, is up.
- A node whose credentials the origin refuses (AccessDenied) ends the search among nodes: the origin
  is read directly, once, with the client's own; if that fails, the error names both.
- A node that wants another token is passed over. If all nodes that answered want another one, the
  read fails: read from the origin all the same, nobody would ever notice the wrong token.
- Once a node says that the origin fails, and origin_patience_ms have passed since the last good
  answer, no further node is asked: an origin that is silent for one node is silent for all.
- Bytes that fail their checksum: the same node once more, checking every page; then the next.
- All else of Retry.NEVER and Retry.REFRESH ends the search; ELSEWHERE goes on. When nobody is left,
  the error names what the nodes and what the origin failed with.

Story: `meet` makes sure that there is a ring; `keeper` asks for what concerns the object as a
whole; `fetch` spreads the ranges over their owners and follows each group until its bytes are
there; `catch_up` fetches a newer member table that some answer made known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from cachesvc.core.blocks import slices
from cachesvc.core.errors import (
    AccessDenied,
    CacheError,
    CorruptAnswer,
    NoCredentials,
    NodeUnavailable,
    OriginError,
    ProtocolError,
    RangeError,
    Retry,
    Unauthenticated,
)
from cachesvc.core.request import MAX_RANGES, MAX_REQUEST_BYTES, ReadRequest, StatRequest
from cachesvc.core.ring import Member
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc_client.effects import (
    Ask,
    AskOrigin,
    Effect,
    Refresh,
    Reply,
    Steps,
    Target,
    Together,
)

if TYPE_CHECKING:
    from cachesvc_client.script import Script

Piece = tuple[int, int, int]  # block index, start, end: within one block, in bytes of the object


@dataclass(slots=True)
class Group:
    """Pieces that one node is asked for in one request; member None: the origin. epoch: of the
    member table by which it was chosen.
    """

    member: Member | None
    epoch: int
    pieces: list[Piece] = field(default_factory=list)
    length_bytes: int = 0


class Failover:
    """The search for answers to one read."""

    def __init__(self, script: Script, name: ObjectName) -> None:
        self._router = script.router
        self._versions = script.versions
        self._config = script.config
        self._clock = script.clock
        self._passes = script.passes
        self._name = name
        self._why: CacheError | None = None  # what the nodes failed with
        self._gone: set[str] = set()  # nodes that this read found down; each costs it once
        self._over = False  # no further node is asked
        self._refused = False  # a node's credentials were, by the origin
        self._wrong_token: Unauthenticated | None = None
        self._token_taken = False
        self._good_s = self._clock()  # when an answer came last
        self._given_up: CacheError | None = None  # what the origin failed with beyond all patience
        self._first_epoch: int | None = self._router.epoch  # None: the table is fresh
        self._differs: Member | None = None  # has another member table than we

    def meet(self) -> Steps[None]:
        """Make sure that there is a ring. Without one, the origin will have to do."""
        if not self._router.known:
            self._first_epoch = None
            try:
                yield Refresh()
            except CacheError as error:
                if error.retry is Retry.NEVER:
                    raise
                self._why = error

    def catch_up(self) -> Steps[None]:
        """Get the member table of a node that has another one, if we met one."""
        if self._differs is not None:
            with suppress(CacheError):  # the read itself is over, and went well
                yield Refresh(self._differs)

    # -- what concerns the object as a whole

    def keeper(
        self,
        request: ReadRequest | StatRequest,
        target: Target | None,
        origin: AskOrigin,
    ) -> Steps[Reply]:
        """Ask the owners of block 0, then the origin."""
        tried: set[str] = set()
        epoch = self._router.epoch
        reply = yield from self._owners(request, target, tried)
        if reply is None and (yield from self._renewed(epoch)):
            tried.clear()
            reply = yield from self._owners(request, target, tried)
        if reply is not None:
            return reply
        try:
            return (yield from self._direct(origin))
        except RangeError:
            if origin.target is None or (isinstance(request, ReadRequest) and request.bypass):
                raise
            return (yield from self._direct(AskOrigin(self._name, None)))
        except CacheError as error:
            return (yield from self._rescue(0, request, target, tried, error))

    def _owners(
        self, request: ReadRequest | StatRequest, target: Target | None, tried: set[str]
    ) -> Steps[Reply | None]:
        for member in self._router.candidates(self._name, 0):
            if not self._may_ask(member):
                continue
            tried.add(member.node_id)
            try:
                return (yield from self._ask(member, request, target))
            except CacheError as error:
                self._pass(error)
        return None

    # -- ranges of a known version

    def fetch(
        self, version: ObjectVersion, spans: Sequence[tuple[int, int]], target: Target
    ) -> Steps[None]:
        """Read disjoint spans, within the object, of a version with a strong ETag."""
        geometry = self._router.geometry
        if len(spans) == 1:
            (start, end), index = spans[0], spans[0][0] // geometry.block_bytes
            if end <= (index + 1) * geometry.block_bytes:
                member = self._next(index, frozenset())
                lone = Group(member, self._router.epoch, [(index, start, end)], end - start)
                yield from self._group(version, lone, target, frozenset())
                return
        pieces = [
            (one.block.index, one.object_start, one.object_start + one.length_bytes)
            for start, end in spans
            for one in slices(version, ByteRange(start, end), geometry)
        ]
        yield from self._fetch(version, pieces, target, frozenset())

    def _fetch(
        self, version: ObjectVersion, pieces: list[Piece], target: Target, tried: frozenset[str]
    ) -> Steps[None]:
        groups = self._grouped(pieces, tried, in_place=target.in_place)
        yield from together([self._group(version, one, target, tried) for one in groups])

    def _grouped(
        self, pieces: list[Piece], tried: frozenset[str], *, in_place: bool
    ) -> list[Group]:
        """The pieces by who is asked for them next, cut to what one request may hold."""
        epoch = self._router.epoch
        chosen: dict[int, Member | None] = {}
        groups: list[Group] = []
        filling: dict[str | None, Group] = {}
        for piece in pieces:
            index, start, end = piece
            if index not in chosen:
                chosen[index] = self._next(index, tried)
            member = chosen[index]
            key = member.node_id if member else None
            most_bytes = self._config.ask_max_bytes
            if in_place and member is not None and self._passes(member):
                most_bytes = MAX_REQUEST_BYTES  # of which next to nothing is sent
            group = filling.get(key)
            if (
                group is None
                or group.length_bytes + end - start > most_bytes
                or len(group.pieces) >= MAX_RANGES
            ):
                group = filling[key] = Group(member, epoch)
                groups.append(group)
            group.pieces.append(piece)
            group.length_bytes += end - start
        return groups

    def _next(self, index: int, tried: frozenset[str]) -> Member | None:
        if self._over or len(tried) >= self._config.owner_tries:
            return None
        owners = self._router.candidates(self._name, index)
        left_out = tried | self._gone
        return next((one for one in owners if one.node_id not in left_out), None)

    def _group(
        self, version: ObjectVersion, group: Group, target: Target, tried: frozenset[str]
    ) -> Steps[None]:
        """Ask the group's node; if it cannot answer, go on with the next owners of its pieces."""
        member = group.member
        if member is None:
            if (yield from self._renewed(group.epoch)):
                yield from self._fetch(version, group.pieces, target, frozenset())
            else:
                yield from self._from_origin(version, group, target, tried)
            return
        if self._may_ask(member):
            ranges = merged(group.pieces)
            try:
                yield from self._ask(member, ReadRequest(self._name, ranges, version), target)
                return
            except CacheError as error:
                self._pass(error)
        yield from self._fetch(version, group.pieces, target, tried | {member.node_id})

    def _from_origin(
        self, version: ObjectVersion, group: Group, target: Target, tried: frozenset[str]
    ) -> Steps[None]:
        part_bytes = self._config.origin_part_bytes
        parts = [
            AskOrigin(self._name, version, start, min(start + part_bytes, beyond), target)
            for first, beyond in merged(group.pieces)
            for start in range(first, beyond, part_bytes)
        ]
        try:
            yield from together([self._direct(part) for part in parts])
        except CacheError as error:
            request = ReadRequest(self._name, merged(group.pieces), version)
            yield from self._rescue(group.pieces[0][0], request, target, tried, error)

    # -- one question

    def _may_ask(self, member: Member) -> bool:
        known_down = self._over or member.node_id in self._gone
        return not known_down and self._router.admit(member.node_id)

    def _ask(
        self, member: Member, request: ReadRequest | StatRequest, target: Target | None
    ) -> Steps[Reply]:
        try:
            return (yield from self._once(member, request, target))
        except CorruptAnswer:
            assert isinstance(request, ReadRequest)
            return (yield from self._once(member, replace(request, verify=True), target))

    def _once(
        self, member: Member, request: ReadRequest | StatRequest, target: Target | None
    ) -> Steps[Reply]:
        asked_at_s = self._clock()
        try:
            reply: Reply = yield Ask(member, request, target)
        except NodeUnavailable as error:
            self._gone.add(member.node_id)
            self._router.failed(member, str(error), self._clock() - asked_at_s)
            raise
        except ProtocolError:
            raise
        except Unauthenticated:
            self._gone.add(member.node_id)
            self._router.succeeded(member)
            raise
        except CacheError as error:
            self._token_taken = True
            if not isinstance(error, CorruptAnswer):
                self._router.succeeded(member)
            raise
        self._token_taken, self._good_s = True, self._clock()
        self._router.succeeded(member)
        if isinstance(request, StatRequest) or (request.version is None and not request.bypass):
            self._versions.put(reply.version, asked_at_s, asked_at_s + reply.fresh_for_s)
        if reply.epoch not in (0, self._router.epoch):
            self._differs = member
        return reply

    def _direct(self, origin: AskOrigin) -> Steps[Reply]:
        if self._wrong_token is not None and not self._token_taken:
            raise self._wrong_token
        if self._given_up is not None:
            raise self._given_up
        try:
            reply: Reply = yield replace(
                origin, patience_s=max(0.0, self._patience_s()), why=self._why
            )
        except OriginError as error:
            if self._patience_s() <= 0:
                self._given_up = error
            raise
        self._good_s = self._clock()
        return replace(reply, direct=True)

    def _rescue(
        self,
        index: int,
        request: ReadRequest | StatRequest,
        target: Target | None,
        tried: Iterable[str],
        error: CacheError,
    ) -> Steps[Reply]:
        """The origin failed too: ask the owners that were left out as ejected, or give up."""
        denied = isinstance(error, AccessDenied)
        if error.retry is not Retry.ELSEWHERE and not denied:
            raise error
        for member in self._router.ejected(self._name, index):
            if not self._over and member.node_id not in tried and member.node_id not in self._gone:
                try:
                    return (yield from self._ask(member, request, target))
                except CacheError as again:
                    self._pass(again)
        if isinstance(error, Unauthenticated):
            raise error
        why = str(self._why) if self._why else self._router.trouble()
        kind = AccessDenied if denied or self._refused else OriginError
        if isinstance(error, NoCredentials) and isinstance(self._why, NoCredentials):
            kind = NoCredentials
        raise kind(
            f"{self._name}: no node could give it ({why}), and reading the origin directly failed"
            f" too ({error})"
        ) from error

    def _pass(self, error: CacheError) -> None:
        """Go on after an error that another one may not have; raise any other."""
        if isinstance(error, Unauthenticated):
            self._wrong_token = error
        elif isinstance(error, AccessDenied):
            self._refused = self._over = True
        elif error.retry is not Retry.ELSEWHERE:
            raise error
        if isinstance(error, OriginError) and self._patience_s() <= 0:
            self._over = True
        self._why = error

    def _patience_s(self) -> float:
        return self._good_s + self._config.origin_patience_ms / 1000 - self._clock()

    # -- the member table

    def _renewed(self, epoch: int) -> Steps[bool]:
        """All nodes that were chosen by this epoch failed: whether there is another member table.

        Once a read: for what was chosen by the table that the read began with. Of several groups at
        once one may have renewed it already, or be about to: whoever refreshes second waits for it.
        """
        if self._over or epoch != self._first_epoch or not self._router.known:
            return False
        if self._router.epoch == epoch:
            try:
                yield Refresh()
            except CacheError as error:
                self._why = self._why or error
                if isinstance(error, Unauthenticated):
                    self._wrong_token = error
        changed = self._router.epoch != epoch
        if changed:
            self._gone.clear()
        return changed


def together(steps: Sequence[Steps[object]]) -> Steps[None]:
    """All of them; of several errors the gravest is raised: NEVER, then REFRESH, then ELSEWHERE."""
    if len(steps) == 1:
        yield from steps[0]
        return
    effect: Effect = Together(steps)
    errors = [one for one in (yield effect) if isinstance(one, CacheError)]
    for retry in (Retry.NEVER, Retry.REFRESH, Retry.ELSEWHERE):
        for error in errors:
            if error.retry is retry:
                raise error


def merged(pieces: Sequence[Piece]) -> tuple[tuple[int, int], ...]:
    """The pieces, which are in order, as ranges, joined where they touch."""
    borders = [pieces[0][1]]
    for (_, _, end), (_, start, _) in pairwise(pieces):
        if end != start:
            borders += [end, start]
    borders.append(pieces[-1][2])
    return tuple(zip(borders[::2], borders[1::2], strict=True))
