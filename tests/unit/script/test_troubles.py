"""Nodes and origin that fail: who is asked next, and what the reader gets."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from cachesvc_client.drive import run
from cachesvc_client.effects import Ask, AskOrigin, Effect, Refresh, Together
from cachesvc_client.target import Room, spans

from cachesvc.core.errors import (
    AccessDenied,
    CacheError,
    CorruptAnswer,
    NoCredentials,
    NodeUnavailable,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    Overloaded,
    RangeError,
    Unauthenticated,
)
from cachesvc.core.ring import Member, MemberTable
from tests.unit.script.world import (
    NAME,
    NEW,
    OLD,
    TABLE,
    World,
    everything,
    failing,
    in_turns,
    owner,
)


@pytest.mark.parametrize("error", [NodeUnavailable, Overloaded, OriginError])
def test_the_next_owner_answers_where_the_first_cannot(error: type[CacheError]) -> None:
    world = World(trouble=failing(owner(0), error=error))
    assert world.read((0, 100)) == [OLD[:100]]
    assert world.asked() == [f"{owner(0)} read", f"{owner(0, 1)} read"]
    world.read((0, 100))
    ejected = error is NodeUnavailable
    assert (world.asked()[0] == f"{owner(0, 1)} read") == ejected


def test_if_nobody_has_credentials_the_error_says_that_trying_again_is_no_use() -> None:
    for node, origin, kind in (
        (NoCredentials, NoCredentials, NoCredentials),
        (NoCredentials, OriginError, OriginError),
        (NodeUnavailable, NoCredentials, OriginError),
    ):
        with pytest.raises(OriginError, match="no node could") as failed:
            World(trouble=everything(node, origin)).read((0, 100))
        assert type(failed.value) is kind


def test_a_group_whose_owner_failed_is_spread_over_the_next_owners() -> None:
    for node_id in ("n0", "n1", "n2", "n3"):
        world = World(trouble=failing(node_id))
        assert world.read((0, None)) == [OLD]
        assert "origin" not in " ".join(world.asked())
        assert sum(one.startswith(node_id) for one in world.asked()) <= 1


def test_a_node_that_was_down_is_tried_again_after_its_ejection() -> None:
    world = World(trouble=failing(owner(0)))
    world.read((0, 100))
    world.trouble = lambda _effect: None
    world.now_s += 1.0
    world.read((0, 100))
    world.read((0, 100))
    assert world.asked() == [f"{owner(0)} read"]


def test_after_owner_tries_the_origin_answers() -> None:
    world = World(trouble=everything(Overloaded))
    assert world.read((0, 100)) == [OLD[:100]]
    assert world.asked() == [
        *(f"{owner(0, rank)} read" for rank in range(3)), "refresh", "origin 0-100"
    ]  # fmt: skip


def test_with_everything_down_a_read_goes_straight_to_the_origin_in_parts() -> None:
    world = World(trouble=everything(NodeUnavailable))
    assert world.read((0, None)) == [OLD]
    assert world.read((0, None)) == [OLD]
    parts = [one for one in world.asked() if one.startswith("origin ") and "head" not in one]
    assert parts == [f"origin {at}-{min(at + 1024, 6000)}" for at in range(0, 6000, 1024)]
    for effect in world.log:
        if isinstance(effect, AskOrigin) and effect.target:
            assert effect.version == world.version


def test_a_client_that_never_met_a_node_reads_small_objects_in_one_get() -> None:
    world = World(known=False, trouble=everything(NodeUnavailable))
    assert world.read((5, 50)) == [OLD[5:50]]
    assert world.asked() == ["refresh", "origin 5-50"]
    world.data = b""
    assert world.read((0, 50)) == [b""]
    assert world.asked() == ["refresh", "origin 0-50", "origin head"]
    with pytest.raises(RangeError):
        world.read((1, 50))


def test_the_ring_is_fetched_before_the_first_question() -> None:
    world = World(known=False)
    assert world.read((0, 10)) == [OLD[:10]]
    assert world.asked() == ["refresh", f"{owner(0)} read"]


def test_another_epoch_has_the_member_table_fetched_after_the_read() -> None:
    world = World(epoch=4711)
    assert world.read((0, 10)) == [OLD[:10]]
    assert world.asked() == [f"{owner(0)} read", "refresh"]
    refresh = world.log[-1]
    assert isinstance(refresh, Refresh)
    assert refresh.member is not None
    assert refresh.member.node_id == owner(0)


def test_a_failing_refresh_after_a_read_does_no_harm() -> None:
    world = World(epoch=4711)
    world.trouble = lambda effect: Unauthenticated("no") if isinstance(effect, Refresh) else None
    assert world.read((0, 10)) == [OLD[:10]]


def test_corrupt_bytes_are_asked_for_again_then_from_the_next_owner_then_the_origin() -> None:
    world = World(trouble=everything(CorruptAnswer))
    assert world.read((0, 100)) == [OLD[:100]]
    expected = []
    for rank in range(3):
        expected += [f"{owner(0, rank)} read", f"{owner(0, rank)} read verify"]
    assert [one for one in world.asked() if one != "refresh"] == [*expected, "origin 0-100"]


def test_corrupt_bytes_that_come_right_when_checked_are_good() -> None:
    world = World()
    world.trouble = lambda effect: (
        CorruptAnswer("flipped")
        if isinstance(effect, Ask) and not getattr(effect.request, "verify", True)
        else None
    )
    assert world.read((0, 3000)) == [OLD[:3000]]
    assert "origin" not in " ".join(world.asked())


@pytest.mark.parametrize("error", [ObjectNotFound, RangeError])
def test_what_would_be_the_same_everywhere_is_raised_at_once(error: type[CacheError]) -> None:
    world = World(trouble=everything(error))
    with pytest.raises(error):
        world.read((0, 100))
    assert len(world.log) == 1


def test_of_several_failures_the_final_one_is_raised() -> None:
    world = World(fresh_for_s=60)
    world.read((0, 1))

    def trouble(effect: Effect) -> CacheError | None:
        if isinstance(effect, Ask) and effect.member.node_id == owner(3):
            return ObjectNotFound("no")
        return ObjectChanged("gone") if isinstance(effect, Ask) else None

    world.trouble = trouble
    with pytest.raises(ObjectNotFound):
        world.read((1024, None))


def test_with_nobody_left_the_error_names_both_failures() -> None:
    world = World(trouble=everything(NodeUnavailable, OriginError))
    for ranges in ([(0, 100)], [(0, None)], [(2000, 2001)], [(5, 5)]):
        with pytest.raises(OriginError, match=r"no node.*no origin"):
            world.read(*ranges)
    world = World(trouble=everything(NodeUnavailable, AccessDenied))
    with pytest.raises(AccessDenied, match=r"no node.*no origin"):
        world.read((0, 100))


def test_ejected_nodes_are_asked_again_before_giving_up() -> None:
    world = World(trouble=everything(NodeUnavailable))
    world.read((0, 100))
    world.read((2000, 3000))
    world.trouble = lambda effect: (
        OriginError("no origin") if isinstance(effect, AskOrigin) else None
    )
    assert world.read((0, 100)) == [OLD[:100]]
    for member in TABLE.members:
        world.router.failed(member)
    assert world.read((0, None)) == [OLD]


def test_any_mix_of_troubles_gives_the_right_bytes_or_an_error(
    record_property: Callable[[str, object], None],
) -> None:
    troubles = [NodeUnavailable, Overloaded, CorruptAnswer, OriginError, ObjectChanged]
    right = 0
    for seed in range(150):
        dice = random.Random(seed)
        record_property("seed", seed)
        world = World(fresh_for_s=dice.choice([0, 60]), settings={"restart_count": 2})

        def trouble(effect: Effect, dice: random.Random = dice) -> CacheError | None:
            if dice.random() < 0.3:
                return dice.choice(troubles)("trouble")
            return None

        def overwrite(_effect: Effect, dice: random.Random = dice, world: World = world) -> None:
            if dice.random() < 0.1:
                new = world.etag == '"old"'
                world.data, world.etag = (NEW, '"new"') if new else (OLD, '"old"')

        world.trouble, world.before = trouble, overwrite
        for _ in range(4):
            world.now_s += dice.choice([0, 2])
            start = dice.randrange(5000)
            end = dice.choice([None, start, start + dice.randrange(3000)])
            try:
                found = world.read((start, end), (0, 5))
            except CacheError:
                continue
            assert found in ([OLD[start:end], OLD[:5]], [NEW[start:end], NEW[:5]]), f"seed {seed}"
            right += 1
    assert right > 400


def test_groups_that_find_all_nodes_replaced_wait_for_the_new_member_table_together() -> None:
    world = World(known=False)
    world.router.adopt(MemberTable([Member(f"x{number}", f"x{number}:1") for number in range(2)]))

    def gone(effect: Effect) -> CacheError | None:
        if isinstance(effect, Ask) and effect.member.node_id.startswith("x"):
            return NodeUnavailable("replaced")
        return OriginError("no credentials") if isinstance(effect, AskOrigin) else None

    def side_by_side(effect: Effect) -> Any:
        return in_turns(effect.steps, perform) if isinstance(effect, Together) else perform(effect)

    perform, world.trouble = world.perform, gone
    world.script.versions.put(world.version, world.now_s, float("inf"))
    room = Room(spans(NAME, [(0, None)]))
    run(world.script.read(NAME, [(0, None)], room), side_by_side)
    assert room.result(0, len(OLD)) == OLD
    assert not any(isinstance(effect, AskOrigin) for effect in world.log)


def test_a_node_that_dies_in_a_long_answer_leaves_the_read_to_the_next_owner() -> None:
    world = World(settings={"origin_patience_ms": 15_000})
    first = owner(1)

    def dies(effect: Effect) -> CacheError | None:
        if isinstance(effect, Ask) and effect.member.node_id == first:
            world.now_s += 16
            return NodeUnavailable("gone")
        return OriginError("no credentials") if isinstance(effect, AskOrigin) else None

    world.trouble = dies
    world.script.versions.put(world.version, world.now_s, float("inf"))
    assert world.read((1024, 2048)) == [OLD[1024:2048]]
