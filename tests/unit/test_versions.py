"""The keeper of versions: as young as was asked for, one HEAD for all, nothing wrong remembered."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any, cast

import pytest

from cachesvc.core.errors import AccessDenied, CacheError, ObjectNotFound, OriginError, Overloaded
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.origin.memory import Fault, MemoryOrigin
from cachesvc.versions import MAX_NOT_FOUND_AGE_S, Versions
from tests.support import NAME, Clock, run, soon

INF = float("inf")


class Bench:
    """A keeper over an origin whose HEADs wait until they are let go."""

    def __init__(self, revalidate_s: float = 10.0, held: bool = False, most: int = 100) -> None:
        self.clock = Clock()
        self.origin = MemoryOrigin()
        self.go = asyncio.Event()
        self.error: CacheError | None = None
        if not held:
            self.go.set()
        self.origin.before = lambda op, name, wanted: self._wait()
        self.versions = Versions(self.origin, revalidate_s, self.clock, most)
        self.complaints: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.complaints.append(str(context)))

    async def _wait(self) -> Fault | None:
        go = self.go
        await go.wait()
        if self.error is not None:
            raise self.error
        return None

    def hold(self) -> asyncio.Event:
        """The next HEADs wait for this."""
        self.go = asyncio.Event()
        return self.go

    @property
    def heads(self) -> int:
        return len(self.origin.log)

    async def get(self, max_age_s: float | None = None) -> ObjectVersion:
        checked = await self.versions.get(NAME, max_age_s)
        assert checked.version is not None
        return checked.version


def test_a_version_is_believed_until_it_is_too_old() -> None:
    async def body() -> None:
        bench = Bench(revalidate_s=10.0)
        first = bench.origin.put(NAME, b"1")
        assert await bench.get() == first
        bench.clock.now += 10.0
        second = bench.origin.put(NAME, b"2")
        assert await bench.get() == first
        assert bench.heads == 1
        bench.clock.now += 0.001
        assert await bench.get() == second
        assert bench.heads == 2

    run(body)


@pytest.mark.parametrize(
    ("revalidate_s", "max_age_s", "age_s", "asks"),
    [
        (10.0, 3.0, 3.0, False),
        (10.0, 3.0, 3.1, True),
        (10.0, 60.0, 10.1, True),  # a caller may ask for younger, not for older
        (10.0, INF, 10.1, True),
        (10.0, 0.0, 0.0, True),
        (0.0, None, 0.0, True),
        (0.0, 60.0, 0.0, True),
        (INF, None, 1e9, False),
        (INF, 5.0, 5.1, True),
        (INF, INF, 1e9, False),
    ],
)
def test_the_stricter_of_both_bounds_counts(
    revalidate_s: float, max_age_s: float | None, age_s: float, asks: bool
) -> None:
    async def body() -> None:
        bench = Bench(revalidate_s)
        bench.origin.put(NAME, b"1")
        await bench.get()
        bench.clock.now += age_s
        assert (bench.versions.peek(NAME, max_age_s) is None) == asks
        await bench.get(max_age_s)
        assert bench.heads == 1 + asks

    run(body)


def test_how_long_a_version_stays_fresh_counts_from_the_sending_of_its_head() -> None:
    async def body() -> None:
        bench = Bench(revalidate_s=10.0, held=True)
        bench.origin.put(NAME, b"1")
        asked = asyncio.create_task(bench.versions.get(NAME))
        await soon(lambda: bench.heads == 1, "the HEAD is sent")
        bench.clock.now += 4.0
        bench.go.set()
        checked = await asked
        assert bench.versions.fresh_for_s(checked) == 6.0
        bench.clock.now += 20.0
        assert bench.versions.fresh_for_s(checked) == 0.0

    run(body)


def test_who_asks_together_shares_one_head() -> None:
    async def body() -> None:
        bench = Bench(held=True)
        version = bench.origin.put(NAME, b"1")
        asks = [asyncio.create_task(bench.get()) for _ in range(64)]
        await soon(lambda: bench.heads == 1, "the HEAD is sent")
        bench.go.set()
        assert await asyncio.gather(*asks) == [version] * 64
        assert bench.heads == 1

    run(body)


def test_a_head_that_was_sent_too_early_is_not_believed() -> None:
    async def body() -> None:
        bench = Bench(held=True)
        bench.origin.put(NAME, b"1")
        early = asyncio.create_task(bench.get(0.0))
        await soon(lambda: bench.heads == 1, "the first HEAD is sent")
        bench.clock.now += 1.0
        late = [asyncio.create_task(bench.get(0.0)) for _ in range(10)]
        patient = asyncio.create_task(bench.get(1.0))
        await asyncio.sleep(0)
        first_go, _ = bench.go, bench.hold()
        first_go.set()
        first = await early
        assert await patient == first
        second = bench.origin.put(NAME, b"22")
        await soon(lambda: bench.heads == 2, "one more HEAD for all who came late")
        bench.go.set()
        assert await asyncio.gather(*late) == [second] * 10
        assert bench.heads == 2

    run(body)


def test_no_answer_is_older_than_asked_for_whatever_the_order() -> None:
    async def body(seed: int) -> None:
        chance = random.Random(seed)
        bench = Bench(revalidate_s=2.0)
        eras = [(bench.clock.now, bench.origin.put(NAME, b"0"))]

        async def read() -> None:
            began = bench.clock.now
            age_s = chance.choice([None, 0.0, 0.5, 1.0, 5.0])
            version = await bench.get(age_s)
            not_before = began - min(2.0, 2.0 if age_s is None else age_s)
            gone = next((eras[i + 1][0] for i, (_, v) in enumerate(eras[:-1]) if v == version), INF)
            assert gone >= not_before

        tasks, gates = [], [bench.go]
        for step in range(60):
            action = chance.randrange(5)
            if action == 0:
                gates.append(bench.hold())
            elif action == 1:
                bench.go.set()
            elif action == 2:
                bench.clock.now += 0.3
                eras.append((bench.clock.now, bench.origin.put(NAME, b"%d" % step)))
                bench.clock.now += 0.3
            else:
                tasks.append(asyncio.create_task(read()))
            await asyncio.sleep(0)
            if chance.random() < 0.4:
                gates[0].set()
                gates = gates[1:] or [bench.go]
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks)

    for seed in range(40):
        run(lambda seed=seed: body(seed))  # type: ignore[misc]


def test_a_missing_object_is_remembered_for_a_second_at_most() -> None:
    async def body() -> None:
        bench = Bench(revalidate_s=INF)
        for _ in range(3):
            with pytest.raises(ObjectNotFound, match="s3://bucket/key"):
                await bench.get()
        assert bench.heads == 1
        assert bench.versions.peek(NAME) is None
        version = bench.origin.put(NAME, b"1")
        bench.clock.now += MAX_NOT_FOUND_AGE_S
        with pytest.raises(ObjectNotFound):
            await bench.get()
        with pytest.raises(ObjectNotFound):
            await bench.get(1.0)
        bench.clock.now += 0.001
        assert await bench.get() == version
        assert bench.heads == 2

    run(body)


def test_a_missing_object_is_asked_for_again_where_no_age_is_allowed() -> None:
    async def body() -> None:
        bench = Bench()
        with pytest.raises(ObjectNotFound):
            await bench.get()
        version = bench.origin.put(NAME, b"1")
        assert await bench.get(0.0) == version

    run(body)


@pytest.mark.parametrize("kind", [OriginError, AccessDenied, Overloaded])
def test_an_error_reaches_all_who_wait_and_is_not_remembered(kind: type[CacheError]) -> None:
    async def body() -> None:
        bench = Bench(held=True)
        version = bench.origin.put(NAME, b"1")
        bench.error = kind("told so")
        asks = [asyncio.create_task(bench.get()) for _ in range(5)]
        await soon(lambda: bench.heads == 1, "sent")
        bench.go.set()
        errors = await asyncio.gather(*asks, return_exceptions=True)
        assert [(type(error), str(error)) for error in errors] == [(kind, "told so")] * 5
        bench.error = None
        assert await bench.get() == version
        assert bench.heads == 2

    run(body)


def test_an_error_on_revalidation_is_no_reason_to_believe_the_old_version() -> None:
    async def body() -> None:
        bench = Bench(revalidate_s=1.0)
        bench.origin.put(NAME, b"1")
        await bench.get()
        bench.clock.now += 2.0
        bench.error = OriginError("down")
        with pytest.raises(OriginError):
            await bench.get()
        assert bench.versions.peek(NAME) is None

    run(body)


def test_one_who_stops_waiting_leaves_the_head_to_the_others() -> None:
    async def body() -> None:
        bench = Bench(held=True)
        version = bench.origin.put(NAME, b"1")
        one, other = asyncio.create_task(bench.get()), asyncio.create_task(bench.get())
        await soon(lambda: bench.heads == 1, "sent")
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        bench.go.set()
        assert await other == version
        assert bench.heads == 1

    run(body)


def test_a_head_that_fails_when_nobody_waits_any_more_fails_quietly() -> None:
    async def body() -> None:
        bench = Bench(held=True)
        bench.error = OriginError("down")
        asks = [asyncio.create_task(bench.get()), asyncio.create_task(bench.get(0.0))]
        await soon(lambda: bench.heads == 1, "sent")
        for asked in asks:
            asked.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
        del asks, asked
        bench.go.set()
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
        assert bench.complaints == []
        bench.error = None
        version = bench.origin.put(NAME, b"1")
        assert await bench.get() == version

    run(body)


def test_a_denied_version_is_forgotten_and_no_other() -> None:
    async def body() -> None:
        bench = Bench(revalidate_s=INF)
        old = bench.origin.put(NAME, b"1")
        await bench.get()
        new = bench.origin.put(NAME, b"2")
        bench.versions.forget(new)
        assert await bench.get() == old
        bench.versions.forget(old)
        assert await bench.get() == new
        bench.versions.forget(old)
        assert await bench.get() == new
        assert bench.heads == 2

    run(body)


def test_a_head_that_was_under_way_when_the_object_was_written_answers_nobody_later() -> None:
    async def body() -> None:
        bench = Bench()
        old = bench.origin.put(NAME, b"old")
        go = bench.hold()
        early = asyncio.ensure_future(bench.get())
        await soon(lambda: bench.heads == 1, "the HEAD is under way")
        bench.versions.forget_object(NAME)
        bench.hold().set()
        new = bench.origin.put(NAME, b"newer")
        assert await bench.get() == new
        bench.origin.put(NAME, b"old", old.etag)
        go.set()
        assert (await early).etag == old.etag
        assert await bench.get() == new
        assert bench.heads == 2

    run(body)


def test_the_table_is_bounded() -> None:
    async def body() -> None:
        bench = Bench(most=3)
        names = [ObjectName("bucket", f"key{number}") for number in range(6)]
        for name in names:
            bench.origin.put(name, b"1")
            await bench.versions.get(name)
        assert [bench.versions.peek(name) is not None for name in names] == [False] * 3 + [True] * 3

    run(body)


def test_an_odd_origin_is_asked_for_the_exact_name() -> None:
    async def body() -> None:
        bench = Bench()
        asked: list[tuple[str, ObjectName, ByteRange | None]] = []

        def before(op: str, name: ObjectName, wanted: ByteRange | None) -> None:
            asked.append((op, name, wanted))

        bench.origin.before = before
        name = ObjectName("bucket", "a/../b//ü")
        with pytest.raises(ObjectNotFound):
            await bench.versions.get(name)
        assert asked == [("head", name, None)]

    run(body)


def test_a_probe_that_waits_does_not_satisfy_who_wants_a_younger_check() -> None:
    class Waiting:
        """A probe that is sent late, and may be answered from what was known before."""

        sent_at, max_age_s = INF, 6.0

        def __init__(self, version: ObjectVersion) -> None:
            self.version, self.told = version, asyncio.Event()

        async def head(self) -> ObjectVersion:
            await self.told.wait()
            return self.version

    async def body() -> None:
        bench = Bench()
        probe = Waiting(bench.origin.put(NAME, b"1"))
        patient = asyncio.create_task(bench.versions.get(NAME, 10.0, cast("Any", probe)))
        await asyncio.sleep(0)
        strict = asyncio.create_task(bench.versions.get(NAME, 0.0))
        await asyncio.sleep(0)
        new = bench.origin.put(NAME, b"2")
        probe.sent_at = bench.clock() + 1
        bench.clock.now += 1
        probe.told.set()
        assert (await patient).version == probe.version
        assert (await strict).version == new
        assert bench.heads == 1

    run(body)
