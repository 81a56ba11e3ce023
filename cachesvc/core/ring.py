"""Who owns a block: a consistent-hash ring over the members of the cluster.

Rules: everything is derived from the member table alone, so two processes that hold equal tables
agree on every owner without talking; all hashes are xxh3-64 over length-prefixed bytes, never
Python's `hash()`, which differs from process to process; a member's addresses are no part of its
tokens, so a restart under a new address moves nothing.

Story: each member puts `vnodes_per_weight * weight` tokens on the circle `[0, 2**64)`. A block
stands at the position of (bucket, key, block index): its ETag has no say, so a new version of an
object lives where the old one lived. The first token beyond a position owns it, and the next tokens
of other members are the further owners. A joining member moves positions only to
itself, a leaving one only its own; `diff` lists which.

The source: Karger et al., "Consistent hashing and random trees", STOC 1997.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from heapq import merge
from itertools import pairwise
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from cachesvc.core.types import ObjectName

DEFAULT_VNODES_PER_WEIGHT = 512
MAX_NODE_ID_CHARS = 128
MAX_ADDRESS_CHARS = 512
MAX_WEIGHT = 100
MAX_TOTAL_WEIGHT = 8192  # of a table: bounds the tokens of a ring, whoever sent the table
POSITIONS = 1 << 64


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A node of the cluster: its lasting id, where it is reached, and its share of the ring.

    Raises:
        ValueError: an id or address that is empty, too long, or holds spaces or control characters;
            a weight outside 1..MAX_WEIGHT. Only grpc_address may be empty: no gRPC offered.
    """

    node_id: str
    lane_address: str
    grpc_address: str = ""
    weight: int = 1

    def __post_init__(self) -> None:
        _check_word("node_id", self.node_id, MAX_NODE_ID_CHARS)
        _check_word("lane_address", self.lane_address, MAX_ADDRESS_CHARS)
        if self.grpc_address:
            _check_word("grpc_address", self.grpc_address, MAX_ADDRESS_CHARS)
        if not 1 <= self.weight <= MAX_WEIGHT:
            raise ValueError(f"{self.node_id}: weight {self.weight} is not in 1..{MAX_WEIGHT}")


def _check_word(what: str, value: str, limit_chars: int) -> None:
    if not 1 <= len(value) <= limit_chars:
        raise ValueError(f"{what} {value[:40]!r} has {len(value)} characters; 1..{limit_chars} fit")
    if not value.isprintable() or any(char.isspace() for char in value):
        raise ValueError(f"{what} {value!r} holds a space or a character that is not printable")


@dataclass(frozen=True, slots=True, init=False)
class MemberTable:
    """The members of a cluster, sorted by id. Two tables are equal exactly if their epochs are.

    epoch: xxh3-64 of every field of every member. It is a fingerprint, not a counter: a change that
    is taken back brings the old epoch back.

    Raises:
        ValueError: two members share an id, or the weights add up to more than MAX_TOTAL_WEIGHT.
    """

    members: tuple[Member, ...]
    epoch: int = field(compare=False)

    def __init__(self, members: Iterable[Member] = ()) -> None:
        ordered = tuple(sorted(members))
        for one, other in pairwise(ordered):
            if one.node_id == other.node_id:
                raise ValueError(
                    f"two members call themselves {one.node_id!r} ({one.lane_address} and "
                    f"{other.lane_address}): give each node a data directory of its own"
                )
        if sum(member.weight for member in ordered) > MAX_TOTAL_WEIGHT:
            raise ValueError(
                f"the weights of {len(ordered)} members add up to more than {MAX_TOTAL_WEIGHT}: "
                "weights are relative, give smaller ones"
            )
        object.__setattr__(self, "members", ordered)
        object.__setattr__(self, "epoch", xxh3_64_intdigest(_encode(ordered)))


def _encode(members: tuple[Member, ...]) -> bytes:
    """Every field of every member with its length before it, so that no two tables encode alike."""
    parts = [b"member table 1", len(members).to_bytes(4, "big")]
    for member in members:
        for name in (spec.name for spec in fields(Member)):
            parts.append(_prefixed(str(getattr(member, name)).encode()))
    return b"".join(parts)


def _prefixed(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "big") + raw


def position(name: ObjectName, block_index: int) -> int:
    """Where a block stands on the circle, in `[0, POSITIONS)`: the same for all versions of it."""
    bucket, key = name.bucket.encode(), name.key.encode()
    return xxh3_64_intdigest(_prefixed(bucket) + _prefixed(key) + block_index.to_bytes(8, "big"))


class Move(NamedTuple):
    """The positions `[start, end)` whose first owner changed; None where a ring had no members."""

    start: int
    end: int
    old_owner_id: str | None
    new_owner_id: str | None


class Ring:
    """The owners of every block under one member table. Immutable; lookups are O(log tokens).

    Raises:
        ValueError: vnodes_per_weight is below 1.
    """

    __slots__ = ("_holders", "_tokens", "table", "vnodes_per_weight")

    def __init__(
        self, table: MemberTable, vnodes_per_weight: int = DEFAULT_VNODES_PER_WEIGHT
    ) -> None:
        if vnodes_per_weight < 1:
            raise ValueError(f"vnodes_per_weight is {vnodes_per_weight}: give at least 1")
        self.table = table
        self.vnodes_per_weight = vnodes_per_weight
        pairs = sorted(
            (token, holder)
            for holder, member in enumerate(table.members)
            for token in _tokens_of(member, vnodes_per_weight)
        )
        self._tokens = array("Q", (token for token, _ in pairs))
        self._holders = array("H", (holder for _, holder in pairs))

    @property
    def epoch(self) -> int:
        return self.table.epoch

    @property
    def members(self) -> tuple[Member, ...]:
        return self.table.members

    def owners(self, name: ObjectName, block_index: int, count: int) -> list[Member]:
        """The first `count` distinct owners of a block, in order: all members if they are fewer."""
        return self.owners_at(position(name, block_index), count)

    def owner(self, name: ObjectName, block_index: int) -> Member | None:
        """The first owner of a block; None if the ring has no members."""
        return self.owner_at(position(name, block_index))

    def owners_at(self, where: int, count: int) -> list[Member]:
        """`owners` for a position of the circle."""
        count = min(count, len(self.members))
        first = bisect_right(self._tokens, where)
        found: list[int] = []
        step = 0
        while len(found) < count:
            holder = self._holders[(first + step) % len(self._holders)]
            if holder not in found:
                found.append(holder)
            step += 1
        return [self.members[holder] for holder in found]

    def owner_at(self, where: int) -> Member | None:
        """`owner` for a position of the circle."""
        if not self._tokens:
            return None
        return self.members[self._holders[bisect_right(self._tokens, where) % len(self._tokens)]]

    def tokens(self) -> Iterator[int]:
        """The positions at which ownership may change, in order."""
        return iter(self._tokens)

    def shares(self) -> dict[str, float]:
        """The part of the circle that each member is the first owner of; they add up to 1."""
        lengths = dict.fromkeys((member.node_id for member in self.members), 0)
        for arc in diff(Ring(MemberTable()), self):
            assert arc.new_owner_id is not None
            lengths[arc.new_owner_id] += arc.end - arc.start
        return {node_id: length / POSITIONS for node_id, length in lengths.items()}


def _tokens_of(member: Member, vnodes_per_weight: int) -> Iterable[int]:
    prefix = _prefixed(member.node_id.encode())
    for vnode in range(member.weight * vnodes_per_weight):
        yield xxh3_64_intdigest(prefix + vnode.to_bytes(8, "big"))


def diff(old: Ring, new: Ring) -> list[Move]:
    """Exactly the positions whose first owner differs, as ranges in order, joined where they touch.

    No range wraps around: one that covers position 0 is listed as two.
    """
    moves: list[Move] = []
    start = 0
    for end in merge(old.tokens(), new.tokens(), (POSITIONS,)):
        if end == start:
            continue
        was, now = _owner_id_at(old, start), _owner_id_at(new, start)
        if was != now:
            if moves and (moves[-1].end, *moves[-1][2:]) == (start, was, now):
                start = moves.pop().start
            moves.append(Move(start, end, was, now))
        start = end
    return moves


def _owner_id_at(ring: Ring, where: int) -> str | None:
    owner = ring.owner_at(where)
    return owner.node_id if owner else None
