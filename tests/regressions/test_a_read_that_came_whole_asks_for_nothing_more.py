"""A range that ends beyond a small object is read in one question.

Story: the object ended within block 0, all of which had come; what was left of the range, beyond
the end, was cut to nothing, and nothing was then fetched: an effect without any work.
"""

from __future__ import annotations

import pytest
from cachesvc_client.effects import Steps
from cachesvc_client.failover import Failover

from tests.unit.script.world import OLD, World, owner


def test_a_read_that_came_whole_asks_for_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[object] = []

    def fetch(*what: object) -> Steps[None]:
        fetched.append(what)
        yield from ()

    monkeypatch.setattr(Failover, "fetch", fetch)
    world = World(data=OLD[:1000])
    assert world.read((10, None)) == [OLD[10:1000]]
    assert world.asked() == [f"{owner(0)} read"]
    assert not fetched
