"""Nodes that refuse the token or cannot reach the origin, and origins that are silent."""

from __future__ import annotations

import pytest
from cachesvc_client.effects import Ask, AskOrigin, Effect

from cachesvc.core.errors import (
    AccessDenied,
    CacheError,
    NodeUnavailable,
    ObjectNotFound,
    OriginError,
    Overloaded,
    RangeError,
    Unauthenticated,
)
from tests.unit.script.world import OLD, World, everything, failing, owner


def test_where_a_node_is_refused_the_origin_is_read_with_our_own_credentials() -> None:
    world = World(trouble=failing(owner(0), error=AccessDenied))
    assert world.read((0, 100)) == [OLD[:100]]
    assert world.asked() == [f"{owner(0)} read", "origin 0-100"]
    assert world.read((0, None)) == [OLD]
    assert [one for one in world.asked() if "origin" not in one] == [f"{owner(0)} read"]
    assert world.read((5, 5)) == [b""]
    assert world.asked() == [f"{owner(0)} stat", "origin head"]


def test_a_node_refused_in_mid_read_ends_the_questions_to_nodes() -> None:
    world = World(fresh_for_s=60)
    world.read((0, 1))
    world.trouble = failing(owner(1), error=AccessDenied)
    assert world.read((1024, 2048)) == [OLD[1024:2048]]
    assert world.asked() == [f"{owner(1)} read", "origin 1024-2048"]


@pytest.mark.parametrize("error", [OriginError, AccessDenied])
def test_a_node_refused_and_the_origin_failing_too_is_access_denied_by_both_names(
    error: type[CacheError],
) -> None:
    for ranges in ([(0, 100)], [(0, None)], [(2000, 2001)], [(5, 5)]):
        world = World(trouble=everything(AccessDenied, error))
        with pytest.raises(AccessDenied, match=r"no node.*no origin"):
            world.read(*ranges)
        assert len(world.log) == 2


def test_what_the_origin_says_of_the_object_itself_counts_where_a_node_is_refused() -> None:
    for error in (ObjectNotFound, RangeError):
        world = World(trouble=everything(AccessDenied, error))
        with pytest.raises(error, match="no origin"):
            world.read((0, 100))


def test_a_node_that_wants_another_token_is_passed_over() -> None:
    for node_id in ("n0", "n1", "n2", "n3"):
        world = World(trouble=failing(node_id, error=Unauthenticated))
        assert world.read((0, None)) == [OLD]
        assert "origin" not in " ".join(world.asked())
        assert sum(one.startswith(node_id) for one in world.asked()) <= 1


@pytest.mark.parametrize("others", [Unauthenticated, NodeUnavailable])
def test_a_token_that_no_node_takes_is_never_covered_up_by_the_origin(
    others: type[CacheError],
) -> None:
    def trouble(effect: Effect) -> CacheError | None:
        if isinstance(effect, Ask) and effect.member.node_id == owner(0):
            return Unauthenticated("wrong token")
        return None if isinstance(effect, AskOrigin) else others("wrong token")

    for ranges in ([(0, 100)], [(0, None)], [(5, 5)]):
        world = World(trouble=trouble)
        with pytest.raises(Unauthenticated, match="wrong token"):
            world.read(*ranges)
        assert "origin" not in " ".join(world.asked())


def test_a_token_that_one_node_takes_is_good_enough_for_the_origin() -> None:
    world = World()

    def trouble(effect: Effect) -> CacheError | None:
        if isinstance(effect, AskOrigin):
            return None
        busy = isinstance(effect, Ask) and effect.member.node_id == owner(0, 1)
        return Overloaded("busy") if busy else Unauthenticated("wrong token")

    world.trouble = trouble
    assert world.read((0, 100)) == [OLD[:100]]
    assert world.asked()[-1] == "origin 0-100"


def test_a_silent_origin_costs_one_node_and_one_try_of_our_own() -> None:
    """A node gives up after 18 s; the origin is tried while the patience lasts."""
    world = World(trouble=everything(OriginError, OriginError))

    def slow(effect: Effect) -> None:
        world.now_s += 18.0 if isinstance(effect, Ask) else 9.0

    world.before = slow
    for ranges in ([(0, 100)], [(0, None)]):
        began_s = world.now_s
        with pytest.raises(OriginError, match=r"no node.*no origin"):
            world.read(*ranges)
        assert world.now_s - began_s <= 30.0
        last = world.log[-1]
        assert isinstance(last, AskOrigin)
        assert last.patience_s == 0.0


def test_the_origin_fell_silent_and_no_further_part_is_asked_for() -> None:
    world = World(fresh_for_s=1000)
    world.read((0, 1))
    world.trouble = everything(NodeUnavailable, OriginError)

    def slow(effect: Effect) -> None:
        world.now_s += 9.0 if isinstance(effect, AskOrigin) else 0.0

    world.before = slow
    with pytest.raises(OriginError, match="no origin"):
        world.read((0, None))
    assert sum(isinstance(one, AskOrigin) for one in world.log) == 2
