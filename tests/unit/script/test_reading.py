"""The plain way: which questions a read asks, and of whom."""

from __future__ import annotations

import random

import pytest
from cachesvc_client.effects import Ask
from cachesvc_client.target import Range

from cachesvc.core.errors import (
    ObjectNotFound,
    RangeError,
)
from cachesvc.core.request import MAX_RANGES, ReadRequest
from tests.unit.script.world import OLD, World, owner


def test_a_small_read_is_one_question_to_the_keeper() -> None:
    world = World()
    assert world.read((10, 500)) == [OLD[10:500]]
    assert world.asked() == [f"{owner(0)} read"]


def test_a_large_read_asks_the_keeper_first_and_then_every_owner_for_its_blocks() -> None:
    world = World()
    assert world.read((0, None)) == [OLD]
    assert world.asked()[0] == f"{owner(0)} read"
    for effect in world.log[1:]:
        assert isinstance(effect, Ask)
        assert isinstance(effect.request, ReadRequest)
        assert effect.request.version == world.version
        for start, end in effect.request.ranges:
            assert end is not None
            for block in range(start // 1024, -(-end // 1024)):
                assert owner(block) == effect.member.node_id
        assert sum(e - s for s, e in effect.request.ranges if e) <= 2048
    assert len(world.log) - 1 == len({owner(block) for block in range(1, 6)})


def test_a_range_known_to_be_large_waits_for_no_block_0() -> None:
    world = World()
    assert world.read((0, 2047)) == [OLD[:2047]]
    assert world.asked()[0] == f"{owner(0)} read"
    assert world.read((10, 2048)) == [OLD[10:2048]]
    assert world.asked()[0] == f"{owner(0)} stat"
    assert len(world.log) == 1 + len({owner(0), owner(1)})


def test_a_read_beyond_block_0_asks_the_keeper_for_the_version_alone() -> None:
    world = World()
    assert world.read((3000, 3010)) == [OLD[3000:3010]]
    assert world.asked() == [f"{owner(0)} stat", f"{owner(2)} read"]


def test_many_ranges_of_one_owner_are_one_request() -> None:
    world = World(fresh_for_s=60)
    world.read((0, 1))
    ranges = [(2048 + 10 * number, 2048 + 10 * number + 5) for number in range(90)]
    assert world.read(*ranges) == [OLD[start:end] for start, end in ranges]
    assert world.asked() == [f"{owner(2)} read"]


def test_ranges_may_overlap_and_come_in_any_order_and_more_than_one_request_holds() -> None:
    world = World()
    ranges: list[Range] = [(start, start + 1) for start in range(0, 2 * MAX_RANGES + 400, 2)]
    ranges += [(700, 300 + 700), (5999, None), (0, 6000)]
    random.Random(5).shuffle(ranges)
    assert world.read(*ranges) == [OLD[start:end] for start, end in ranges]
    assert world.read(*[one for one in ranges if one != (0, 6000)])
    for effect in world.log:
        assert isinstance(effect, Ask)
        assert isinstance(effect.request, ReadRequest)
        assert len(effect.request.ranges) <= MAX_RANGES


def test_an_empty_range_still_checks_that_the_object_is_there() -> None:
    world = World()
    assert world.read((5, 5)) == [b""]
    assert world.asked() == [f"{owner(0)} stat"]
    with pytest.raises(RangeError):
        world.read((7000, 7000))
    world.data = None
    with pytest.raises(ObjectNotFound):
        world.read((5, 5))


def test_ranges_are_cut_as_slices_are_and_refused_beyond_the_end() -> None:
    world = World()
    assert world.read((5990, 99_999), (6000, None)) == [OLD[5990:], b""]
    with pytest.raises(RangeError):
        world.read((0, 10), (6001, 6002))
    world.log.clear()
    for start, end in [(-1, 5), (5, 4)]:
        with pytest.raises(RangeError):
            world.read((start, end))
    assert world.log == []


def test_an_empty_object_reads_as_nothing() -> None:
    world = World(data=b"")
    assert world.read((0, None)) == [b""]
    assert world.read((0, 10)) == [b""]
