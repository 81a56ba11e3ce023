"""The read logic without any I/O: a world of dictionaries answers the effects, in the open.

`World` is the driver: nodes and origin share one object store, every effect is written down, and a
script of troubles says which question fails, and how.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from cachesvc_client.config import ClientConfig
from cachesvc_client.drive import run
from cachesvc_client.effects import Ask, AskOrigin, Effect, Refresh, Reply, Target, Together
from cachesvc_client.router import Router
from cachesvc_client.script import Script
from cachesvc_client.target import Range, Room, spans
from cachesvc_client.versions import VersionCache

from cachesvc.core.errors import (
    AccessDenied,
    CacheError,
    CorruptAnswer,
    NodeUnavailable,
    NotCacheable,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    Overloaded,
    RangeError,
    Unauthenticated,
)
from cachesvc.core.request import MAX_RANGES, ReadRequest
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
        self.router = Router(table, GEOMETRY, clock=lambda: self.now_s)
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
    return "refresh"


def failing(*node_ids: str, error: type[CacheError] = NodeUnavailable) -> Trouble:
    def trouble(effect: Effect) -> CacheError | None:
        if isinstance(effect, Ask) and effect.member.node_id in node_ids:
            return error(f"{effect.member.node_id} is in trouble")
        return None

    return trouble


def everything(node: type[CacheError], origin: type[CacheError] | None = None) -> Trouble:
    def trouble(effect: Effect) -> CacheError | None:
        if isinstance(effect, Ask | Refresh):
            return node("no node")
        return origin("no origin") if origin and isinstance(effect, AskOrigin) else None

    return trouble


# -- the plain way


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


# -- the version


def test_a_version_is_believed_from_the_sending_on_and_no_longer_than_allowed() -> None:
    def slow(_effect: Effect) -> None:
        world.now_s += 4.0

    world = World(fresh_for_s=10.0, before=slow)
    world.read((2000, 2001))  # asked at 0
    world.before = lambda _effect: None
    world.now_s = 9.9
    world.read((2000, 2001))
    assert world.asked() == [f"{owner(1)} read"]
    world.now_s = 10.0
    world.read((2000, 2001))
    assert world.asked() == [f"{owner(0)} stat", f"{owner(1)} read"]


def test_nothing_is_believed_where_the_node_allows_nothing() -> None:
    world = World(fresh_for_s=0.0)
    for _ in range(2):
        world.read((2000, 2001))
        assert world.asked()[0] == f"{owner(0)} stat"


def test_an_overwrite_restarts_the_whole_read_with_a_new_version() -> None:
    world = World(fresh_for_s=60)
    world.read((0, 1))
    world.data, world.etag = NEW, '"new"'
    assert world.read((0, None)) == [NEW]
    restarted = [one for one in world.log if isinstance(one, Ask) and one.member.node_id]
    ages = [one.request.max_age_s for one in restarted if one.request.max_age_s is not None]
    assert ages == [0.0]


def test_an_object_that_changes_all_the_time_is_read_in_one_get() -> None:
    world = World(settings={"restart_count": 2})

    def overwrite(effect: Effect) -> None:
        if isinstance(effect, Ask) and not getattr(effect.request, "bypass", False):
            world.etag = f'"v{len(world.log)}"'
            world.data = NEW if len(world.log) % 2 else OLD

    world.before = overwrite
    assert world.read((100, None)) in ([NEW[100:]], [OLD[100:]])
    assert world.asked()[-1] == f"{owner(0)} bypass"
    assert sum(one == f"{owner(0)} read" for one in world.asked()) >= 3


def test_a_pinned_read_is_never_restarted() -> None:
    world = World()
    pinned = world.version
    assert world.read((2000, 4000), pinned=pinned) == [OLD[2000:4000]]
    world.data, world.etag = NEW, '"new"'
    with pytest.raises(ObjectChanged):
        world.read((2000, 4000), pinned=pinned)
    assert len(world.log) <= 3


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_an_object_without_a_strong_etag_is_read_in_one_get(etag: str) -> None:
    world = World(etag=etag, fresh_for_s=60)
    for _ in range(2):
        assert world.read((10, 3000)) == [OLD[10:3000]]
        assert world.asked()[-1] == f"{owner(0)} bypass"
    assert world.asked() == [f"{owner(0)} bypass"]
    assert world.read((10, 20), (4000, 4100), (15, 30)) == [
        OLD[10:20], OLD[4000:4100], OLD[15:30]
    ]  # fmt: skip
    assert sum("bypass" in one for one in world.asked()) == 1
    assert world.read((0, 0)) == [b""]
    assert world.read((10, 20), pinned=world.version) == [OLD[10:20]]


def test_the_single_get_falls_back_to_the_origin() -> None:
    world = World(etag="", trouble=everything(NodeUnavailable))
    assert world.read((0, 3000)) == [OLD[:3000]]
    assert world.asked()[-1] == "origin 0-3000"


# -- failures


@pytest.mark.parametrize("error", [NodeUnavailable, Overloaded, OriginError])
def test_the_next_owner_answers_where_the_first_cannot(error: type[CacheError]) -> None:
    world = World(trouble=failing(owner(0), error=error))
    assert world.read((0, 100)) == [OLD[:100]]
    assert world.asked() == [f"{owner(0)} read", f"{owner(0, 1)} read"]
    world.read((0, 100))
    ejected = error is NodeUnavailable
    assert (world.asked()[0] == f"{owner(0, 1)} read") == ejected


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
    world.script.versions.put(world.version, float("inf"))
    room = Room(spans(NAME, [(0, None)]))
    run(world.script.read(NAME, [(0, None)], room), side_by_side)
    assert room.result(0, len(OLD)) == OLD
    assert not any(isinstance(effect, AskOrigin) for effect in world.log)


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


def test_a_node_that_dies_in_a_long_answer_leaves_the_read_to_the_next_owner() -> None:
    world = World(settings={"origin_patience_ms": 15_000})
    first = owner(1)

    def dies(effect: Effect) -> CacheError | None:
        if isinstance(effect, Ask) and effect.member.node_id == first:
            world.now_s += 16
            return NodeUnavailable("gone")
        return OriginError("no credentials") if isinstance(effect, AskOrigin) else None

    world.trouble = dies
    world.script.versions.put(world.version, float("inf"))
    assert world.read((1024, 2048)) == [OLD[1024:2048]]
