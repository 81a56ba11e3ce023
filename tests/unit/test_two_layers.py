"""Two keepers of versions, a sidecar's over a node's, stay within one bound on age."""

from __future__ import annotations

import random

import pytest

from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.origin.memory import MemoryOrigin
from cachesvc.origin.ring import AGE_SHARE
from cachesvc.versions import Versions
from tests.support import NAME, Clock, run

INF = float("inf")


class Ring(MemoryOrigin):
    """The object store as a node with a memory shows it."""

    age_share = AGE_SHARE

    def __init__(self, node: Versions) -> None:
        super().__init__()
        self.node = node
        self.asked_count = 0

    async def head(self, name: ObjectName, max_age_s: float = 0.0) -> ObjectVersion:
        self.asked_count += 1
        checked = await self.node.get(name, max_age_s)
        assert checked.version is not None
        return checked.version


class Layers:
    """An object store, a node and a sidecar on one clock; `written` is when each version was."""

    def __init__(self, node_s: float, sidecar_s: float) -> None:
        self.clock = Clock()
        self.store = MemoryOrigin()
        self.node = Versions(self.store, node_s, self.clock)
        self.ring = Ring(self.node)
        self.sidecar = Versions(self.ring, sidecar_s, self.clock)
        self.written: dict[str, float] = {}
        self.write()

    def write(self) -> None:
        etag = f'"{len(self.written)}"'
        self.written[etag] = self.clock()
        self.store.put(NAME, etag.encode(), etag)

    async def read(self, max_age_s: float | None) -> float:
        """The moment until which the version that the sidecar tells was current."""
        checked = await self.sidecar.get(NAME, max_age_s)
        assert checked.version is not None
        number = int(checked.version.etag.strip('"'))
        return self.written.get(f'"{number + 1}"', INF)


@pytest.mark.parametrize("sidecar_s", [0.0, 10.0, INF])
@pytest.mark.parametrize("node_s", [0.0, 3.0, 10.0, INF])
def test_what_a_sidecar_tells_was_current_within_its_own_bound(
    node_s: float, sidecar_s: float
) -> None:
    async def body() -> None:
        for seed in range(30):
            dice, layers, told_at = random.Random(seed), Layers(node_s, sidecar_s), -INF
            for _ in range(150):
                layers.clock.now += dice.choice((0.0, 0.1, 1.0, 4.0))
                what = dice.random()
                if what < 0.1:
                    layers.write()
                elif what < 0.2:
                    layers.sidecar.forget_object(NAME)
                    told_at = layers.clock()
                elif what < 0.4:
                    await layers.node.get(NAME, dice.choice((None, 0.0, 2.0)))
                else:
                    max_age_s = dice.choice((None, 0.0, 2.0, 20.0))
                    bound_s = min(sidecar_s, INF if max_age_s is None else max_age_s)
                    current_until = await layers.read(max_age_s)
                    oldest = max(layers.clock() - bound_s, told_at)
                    assert current_until >= oldest, f"seed {seed}"

    run(body)


def test_an_object_that_is_read_all_the_time_costs_little_more_than_with_one_layer() -> None:
    async def body() -> None:
        layers = Layers(10.0, 10.0)
        for _ in range(1000):
            await layers.read(None)
            layers.clock.now += 0.1
        assert len(layers.store.log) <= 13  # one layer: 10
        assert layers.ring.asked_count <= 26

    run(body)


def test_what_was_denied_is_not_believed_again_from_the_ring() -> None:
    async def body() -> None:
        layers = Layers(INF, INF)
        first = await layers.sidecar.get(NAME)
        layers.clock.now += 5.0
        layers.write()
        assert (await layers.sidecar.get(NAME)).version == first.version
        assert first.version is not None
        layers.sidecar.forget(first.version)
        assert await layers.read(None) == INF

    run(body)


def test_more_denials_than_are_remembered_count_for_all() -> None:
    async def body() -> None:
        layers = Layers(INF, INF)
        sidecar = Versions(layers.ring, INF, layers.clock, max_entry_count=2)
        await layers.node.get(NAME)
        layers.clock.now += 1.0
        layers.write()
        sidecar.forget_object(NAME)
        for number in range(3):
            sidecar.forget_object(ObjectName("bucket", f"other{number}"))
        layers.clock.now += 1.0
        checked = await sidecar.get(NAME)
        assert checked.version is not None
        assert checked.version.etag == '"1"'

    run(body)
