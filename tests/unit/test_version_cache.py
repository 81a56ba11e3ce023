"""The client's versions: believed for as long as they may be, and none that comes too late."""

from __future__ import annotations

from dataclasses import replace

from cachesvc_client.versions import VersionCache

from cachesvc.core.types import ObjectName, ObjectVersion
from tests.support import NAME, Clock

OLD = ObjectVersion(NAME, '"old"', 10, 1)
NEW = replace(OLD, etag='"new"')
INF = float("inf")


def test_a_version_is_believed_until_its_time_is_over() -> None:
    clock = Clock()
    cache = VersionCache(10, clock)
    cache.put(OLD, clock.now, clock.now + 5)
    clock.now += 4.9
    assert cache.get(NAME) is OLD
    clock.now += 0.1
    assert cache.get(NAME) is None


def test_what_was_asked_for_before_it_was_forgotten_is_not_believed() -> None:
    clock = Clock()
    for whole in (False, True):
        cache = VersionCache(10, clock)
        asked_s = clock.now
        clock.now += 1
        cache.clear() if whole else cache.forget(NAME)
        cache.put(OLD, asked_s, INF)
        assert cache.get(NAME) is None
        cache.put(NEW, clock.now, INF)
        assert cache.get(NAME) is NEW


def test_an_older_answer_does_not_take_the_place_of_a_younger_one_while_that_is_believed() -> None:
    clock = Clock()
    cache = VersionCache(10, clock)
    cache.put(NEW, clock.now + 1, clock.now + 5)
    cache.put(OLD, clock.now, INF)
    assert cache.get(NAME) is NEW
    clock.now += 5
    cache.put(OLD, clock.now - 5, INF)
    assert cache.get(NAME) is OLD


def test_what_was_forgotten_is_known_of_so_many_and_then_counts_for_all() -> None:
    clock = Clock()
    cache = VersionCache(2, clock)
    names = [ObjectName("bucket", str(number)) for number in range(3)]
    asked_s = clock.now
    for name in names:
        clock.now += 1
        cache.forget(name)
    for name in (*names, NAME):
        cache.put(replace(OLD, name=name), asked_s, INF)
        assert cache.get(name) is None
    cache.put(OLD, asked_s + 1, INF)
    assert cache.get(NAME) is OLD, "asked for after the first was forgotten"
