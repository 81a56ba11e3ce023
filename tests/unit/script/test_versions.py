"""Which version a read believes, and what it does when the object changes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cachesvc_client.drive import run
from cachesvc_client.effects import Ask, Effect, Forget

from cachesvc.core.errors import AccessDenied, CacheError, NodeUnavailable, ObjectChanged
from cachesvc.core.types import ObjectName
from cachesvc.wire import codec
from cachesvc.wire.frame import MAX_HEADER_BYTES
from tests.unit.script.world import NAME, NEW, OLD, World, everything, failing, owner


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


def test_of_what_was_written_every_node_is_told_that_can_be() -> None:
    world = World(fresh_for_s=60)
    world.read((0, 1))
    world.log.clear()
    world.trouble = failing("n1")
    run(world.script.forget([NAME]), world.perform)
    assert sorted(world.asked()) == ["n0 forget", "n1 forget", "n2 forget", "n3 forget"]
    world.log.clear()
    run(world.script.forget([NAME]), world.perform)
    assert "n1 forget" not in world.asked(), "it is known to be down"
    world.trouble, world.data, world.etag = lambda _effect: None, NEW, '"new"'
    assert world.read((0, 10)) == [NEW[:10]]


def test_a_node_that_answers_with_an_error_that_it_was_told_is_up() -> None:
    world = World(fresh_for_s=60)
    owners = world.router.owners(NAME, 0)
    world.router.failed(owners[0])
    world.now_s += 2.0

    def refuses(effect: Effect) -> None:
        if isinstance(effect, Forget) and effect.member == owners[0]:
            raise AccessDenied("not you")

    world.trouble = refuses
    with suppress(CacheError):
        run(world.script.forget([NAME]), world.perform)
    assert world.router.first_owner(NAME, 0) == owners[0]


def test_an_answer_that_a_write_overtook_is_not_believed() -> None:
    """It was asked for before a node had been told, and ends after that."""
    world = World(fresh_for_s=60)

    def overtaken(effect: Effect) -> None:
        world.before = lambda _effect: None
        world.now_s += 1
        world.script.versions.forget(NAME)

    world.before = overtaken
    world.read((2000, 2001))
    assert world.script.versions.get(NAME) is None


def test_what_a_node_says_before_it_is_told_of_a_write_is_not_believed() -> None:
    world = World(fresh_for_s=60)

    def meanwhile(effect: Effect) -> None:
        if isinstance(effect, Forget):
            world.before = lambda _effect: None
            world.now_s += 1
            world.script.versions.put(world.version, world.now_s, world.now_s + 60)
            world.now_s += 1

    world.before = meanwhile
    run(world.script.forget([NAME]), world.perform)
    assert world.script.versions.get(NAME) is None


def test_many_objects_are_forgotten_in_few_requests() -> None:
    world = World(fresh_for_s=60)
    short = [ObjectName("bucket", f"key-{number}") for number in range(1000)]
    run(world.script.forget(short), world.perform)
    told = [one for one in world.log if isinstance(one, Forget)]
    assert sorted(one.member.node_id for one in told) == ["n0", "n1", "n2", "n3"]
    assert all(list(one.names) == short for one in told)
    world.log.clear()
    long = [ObjectName("bucket", f"{number:0>1000}") for number in range(1000)]
    run(world.script.forget(long), world.perform)
    groups = [one.names for one in world.log if isinstance(one, Forget)]
    assert [name for group in groups for name in group].count(long[7]) == 4
    assert all(len(codec.pack_forget(group)) < MAX_HEADER_BYTES for group in groups)


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
