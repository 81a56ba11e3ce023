"""The ring places every block alike everywhere, moves only what must move, and shares fairly."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.core.ring import POSITIONS, Member, MemberTable, Move, Ring, diff, position
from cachesvc.core.types import ObjectName

PROFILE = settings(max_examples=100)
FEW = 16  # vnodes: enough to interleave, few enough to be quick

node_ids = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=9)
members = st.builds(Member, node_ids, st.just("host:1"), st.just(""), st.integers(1, 4))
tables = st.lists(members, max_size=7, unique_by=lambda member: member.node_id).map(MemberTable)
positions = st.integers(0, POSITIONS - 1)


def ring_of(*node_ids: str, vnodes: int = 512) -> Ring:
    return Ring(MemberTable(Member(node_id, "host:1") for node_id in node_ids), vnodes)


def owner_id(ring: Ring, where: int) -> str | None:
    owner = ring.owner_at(where)
    return owner.node_id if owner else None


@PROFILE
@given(tables, positions, st.integers(0, 9))
def test_owners_are_distinct_and_as_many_as_asked_or_all(
    table: MemberTable, where: int, count: int
) -> None:
    ring = Ring(table, FEW)
    owners = ring.owners_at(where, count)
    assert len(owners) == len({owner.node_id for owner in owners}) == min(count, len(table.members))
    assert owners[:1] == [ring.owner_at(where)][: len(owners)]
    assert ring.owners_at(where, count + 1)[: len(owners)] == owners


@PROFILE
@given(tables, positions)
def test_owners_stand_in_the_order_of_the_tokens(table: MemberTable, where: int) -> None:
    ring = Ring(table, FEW)
    around = [owner_id(ring, token - 1) for token in ring.tokens() if token > where]
    around += [owner_id(ring, token - 1) for token in ring.tokens() if token <= where]
    ids = [owner.node_id for owner in ring.owners_at(where, len(table.members))]
    assert ids == list(dict.fromkeys(around))


@PROFILE
@given(tables, members, st.lists(positions, max_size=50))
def test_joining_moves_positions_only_to_the_newcomer_and_leaving_only_from_the_leaver(
    table: MemberTable, newcomer: Member, sample: list[int]
) -> None:
    others = [member for member in table.members if member.node_id != newcomer.node_id]
    without, with_it = Ring(MemberTable(others), FEW), Ring(MemberTable([*others, newcomer]), FEW)
    assert all(move.new_owner_id == newcomer.node_id for move in diff(without, with_it))
    assert all(move.old_owner_id == newcomer.node_id for move in diff(with_it, without))
    for where in sample:
        after = [member for member in with_it.owners_at(where, 9) if member != newcomer]
        assert after == without.owners_at(where, 9)


@PROFILE
@given(tables, tables, st.lists(positions, max_size=50))
def test_diff_lists_exactly_the_positions_whose_owner_changed(
    old_table: MemberTable, new_table: MemberTable, sample: list[int]
) -> None:
    old, new = Ring(old_table, FEW), Ring(new_table, FEW)
    moves = diff(old, new)
    for one, other in pairwise(moves):
        assert one.end < other.start or (one.end == other.start and one[2:] != other[2:])
    borders = [border for move in moves for border in (move.start, move.end - 1, move.end)]
    for where in [*sample, *borders, 0, POSITIONS - 1]:
        covering = [move for move in moves if move.start <= where < move.end]
        was, now = owner_id(old, where % POSITIONS), owner_id(new, where % POSITIONS)
        if where < POSITIONS:
            assert [move[2:] for move in covering] == ([(was, now)] if was != now else [])


def test_diff_from_an_empty_ring_covers_the_whole_circle() -> None:
    assert diff(ring_of(), ring_of("a")) == [Move(0, POSITIONS, None, "a")]
    assert diff(ring_of("a"), ring_of()) == [Move(0, POSITIONS, "a", None)]
    assert diff(ring_of(), ring_of()) == []


def test_an_empty_ring_has_no_owners() -> None:
    ring = Ring(MemberTable())
    assert ring.owners(ObjectName("b", "k"), 0, 3) == []
    assert ring.owner(ObjectName("b", "k"), 0) is None


@pytest.mark.parametrize("pattern", ["node-{}", "cachesvc-{}", "10.0.0.{}:7000"])
def test_at_eight_nodes_the_busiest_owns_at_most_a_tenth_more_than_the_mean(pattern: str) -> None:
    ring = ring_of(*(pattern.format(number) for number in range(8)))
    assert max(ring.shares().values()) * 8 <= 1.10
    counts = dict.fromkeys((member.node_id for member in ring.members), 0)
    for file in range(100):
        for block in range(500):
            owner = ring.owner(ObjectName("models", f"llama/shard-{file:05}.safetensors"), block)
            assert owner is not None
            counts[owner.node_id] += 1
    assert max(counts.values()) / (50_000 / 8) <= 1.10


def test_over_many_random_clusters_of_eight_the_typical_busiest_is_within_a_tenth() -> None:
    seeded = random.Random(8)
    busiest = sorted(
        max(ring_of(*(f"{seeded.getrandbits(128):032x}" for _ in range(8))).shares().values()) * 8
        for _ in range(40)
    )
    assert busiest[len(busiest) // 2] <= 1.08
    assert busiest[-1] <= 1.20


@pytest.mark.parametrize("weight", [2, 3, 8])
def test_shares_follow_the_weights(weight: int) -> None:
    table = MemberTable(
        [*(Member(f"n{i}", "h:1") for i in range(4)), Member("big", "h:1", "", weight)]
    )
    share = Ring(table).shares()["big"]
    assert share == pytest.approx(weight / (4 + weight), rel=0.10)


def test_shares_add_up_to_one() -> None:
    assert sum(ring_of("a", "b", "c").shares().values()) == pytest.approx(1)


def test_a_new_address_moves_nothing_but_changes_the_epoch() -> None:
    old = MemberTable([Member("a", "host:1"), Member("b", "host:2")])
    new = MemberTable([Member("a", "elsewhere:9"), Member("b", "host:2")])
    assert diff(Ring(old), Ring(new)) == []
    assert old.epoch != new.epoch


@PROFILE
@given(st.lists(members, max_size=6, unique_by=lambda member: member.node_id), st.randoms())
def test_the_epoch_depends_on_the_members_and_not_on_their_order(
    some: list[Member], shuffler: random.Random
) -> None:
    shuffled = list(some)
    shuffler.shuffle(shuffled)
    assert MemberTable(some) == MemberTable(shuffled)
    assert MemberTable(some).epoch == MemberTable(shuffled).epoch


@PROFILE
@given(members, st.sampled_from(["node_id", "lane_address", "grpc_address", "weight"]))
def test_the_epoch_changes_with_every_field(member: Member, field: str) -> None:
    value = getattr(member, field)
    other: Any = value + 1 if isinstance(value, int) else value + "x"
    changed = dataclasses.replace(member, **{field: other})
    assert MemberTable([member]).epoch != MemberTable([changed]).epoch


def test_the_epoch_tells_apart_fields_that_join_alike() -> None:
    epochs = {
        MemberTable([Member("a", "bc", "d")]).epoch,
        MemberTable([Member("ab", "c", "d")]).epoch,
        MemberTable([Member("a", "b", "cd")]).epoch,
        MemberTable([Member("a", "bcd", "")]).epoch,
    }
    assert len(epochs) == 4


def test_positions_tell_apart_names_that_join_alike_and_stay_as_they_are() -> None:
    assert position(ObjectName("a", "bc"), 0) != position(ObjectName("ab", "c"), 0)
    assert position(ObjectName("a", "b"), 0) != position(ObjectName("a", "b"), 1)
    assert position(ObjectName("bucket", "some/key"), 7) == 0xC2279A03A77298BB


def test_another_process_with_another_hash_seed_finds_the_same_owners() -> None:
    script = (
        "from cachesvc.core.ring import *; from cachesvc.core.types import ObjectName\n"
        "ring = Ring(MemberTable(Member(i, 'host:1') for i in 'cab'))\n"
        "print([m.node_id for b in range(50) for m in ring.owners(ObjectName('b', 'k'), b, 2)])"
    )
    ring = ring_of("a", "b", "c")
    here = [m.node_id for b in range(50) for m in ring.owners(ObjectName("b", "k"), b, 2)]
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True,
        env={"PYTHONHASHSEED": "77"},
    )  # fmt: skip
    assert there.stdout.strip() == str(here)


@pytest.mark.parametrize(
    "fields",
    [
        ("", "h:1"),
        ("x" * 129, "h:1"),
        ("a b", "h:1"),
        ("a\n", "h:1"),
        ("a\0", "h:1"),
        ("a", ""),
        ("a", "h 1"),
        ("a", "h" * 513),
        ("a", "h:1", " "),
        ("a", "h:1", "", 0),
        ("a", "h:1", "", 101),
    ],
)
def test_a_member_that_makes_no_sense_is_refused(fields: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        Member(*fields)  # type: ignore[arg-type]


def test_a_table_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="'a'"):
        MemberTable([Member("a", "h:1"), Member("a", "h:2")])
    with pytest.raises(ValueError, match="weights"):
        MemberTable(Member(f"n{i}", "h:1", "", 100) for i in range(82))
    with pytest.raises(ValueError, match="vnodes"):
        Ring(MemberTable(), 0)
