"""Fills that wait for their turn at an origin that says nothing are refused; slow ones are not.

Story: 32 GETs at a time, each of which takes 18 s to find the origin silent: the last of hundreds
of cold blocks was told after minutes. Age alone is no reason to refuse: in a queue that moves, the
last one waits as long and is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from cachesvc.coalescer import SILENCE_S, Coalescer
from cachesvc.core.blocks import BlockRef
from cachesvc.core.errors import OriginError
from cachesvc.core.types import Geometry, ObjectName
from cachesvc.disk.memory import MemoryDisk
from cachesvc.flight import Hold
from cachesvc.metrics import Metrics
from cachesvc.origin.memory import Fault, MemoryOrigin
from cachesvc.origin.s3_client import S3Settings
from cachesvc.store import Store
from tests.sim.loop import VirtualLoop

GEOMETRY = Geometry(128, 128, 128, 128)
BLOCK_COUNT = 200
GETS = 4
ATTEMPTS_S = 2 * S3Settings().read_timeout_ms / 1000  # what a silent origin costs one GET


class Bench:
    """Fills of many blocks, over an origin that first waits for `silent_s`, on virtual time."""

    def __init__(self, silent_s: float, answers: bool) -> None:
        self.silent_s, self.answers = silent_s, answers
        self.origin = MemoryOrigin(before=lambda op, name, wanted: self._before(name))
        metrics = Metrics()
        store = Store([MemoryDisk()], 1 << 20, metrics)
        for _ in store.recover():
            pass
        hop = asyncio.get_running_loop().call_soon
        self.coalescer = Coalescer(self.origin, store, metrics, hop, max_gets=GETS)
        self._version = self.origin.put(ObjectName("bucket", "key"), bytes(128 * BLOCK_COUNT))

    async def _before(self, name: ObjectName) -> Fault | None:
        answers = self.answers
        await asyncio.sleep(self.silent_s)
        if not answers:
            raise OriginError(f"{name}: no bytes for a while")
        return None

    def begin(self, first: int, beyond: int) -> list[asyncio.Task[float]]:
        return [
            asyncio.create_task(self._fill(index, asyncio.get_running_loop().time()))
            for index in range(first, beyond)
        ]

    async def _fill(self, index: int, began_at: float) -> float:
        """How long it took to be filled, or the time and the error."""
        hold: Hold = self.coalescer.join(BlockRef(self._version, index, GEOMETRY), 1)
        try:
            await hold.flights[0].wait(0)
            return asyncio.get_running_loop().time() - began_at
        except OriginError as error:
            error.add_note(str(asyncio.get_running_loop().time() - began_at))
            raise
        finally:
            hold.close()


def run(body: Callable[[], Coroutine[None, None, None]]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(body())
    finally:
        loop.close()


def test_the_limit_lies_between_one_attempt_and_two() -> None:
    assert S3Settings().read_timeout_ms / 1000 < SILENCE_S < ATTEMPTS_S


def test_queued_fills_of_a_silent_origin_are_refused_in_time() -> None:
    async def body() -> None:
        bench = Bench(ATTEMPTS_S, answers=False)
        results = await asyncio.gather(*bench.begin(0, 100), return_exceptions=True)
        waited = [float(error.__notes__[0]) for error in results if isinstance(error, OriginError)]
        assert len(waited) == 100
        assert max(waited) <= ATTEMPTS_S
        refused = [
            str(error) for error in results if "no byte" in str(error) and "wait" in str(error)
        ]
        assert len(refused) == 100 - GETS
        assert "s3://bucket/key" in refused[0]
        assert len(bench.origin.gets) == GETS

    run(body)


def test_one_wave_at_a_time_may_try_again() -> None:
    async def body() -> None:
        bench = Bench(ATTEMPTS_S, answers=False)
        first = bench.begin(0, 50)
        await asyncio.sleep(SILENCE_S + 0.1)
        bench.answers, bench.silent_s = True, 1.0  # it is back
        second = bench.begin(50, 100)
        assert len(await asyncio.gather(*second)) == 50
        errors = await asyncio.gather(*first, return_exceptions=True)
        assert all(isinstance(error, OriginError) for error in errors)

    run(body)


@pytest.mark.parametrize("silent_s", [1.0, 8.5])
def test_a_slow_queue_that_moves_serves_the_last(silent_s: float) -> None:
    async def body() -> None:
        bench = Bench(silent_s, answers=True)
        waited = await asyncio.gather(*bench.begin(0, BLOCK_COUNT))
        assert max(waited) == pytest.approx(silent_s * BLOCK_COUNT / GETS)

    run(body)


def test_a_quiet_hour_is_no_silence() -> None:
    async def body() -> None:
        bench = Bench(1.0, answers=True)
        await asyncio.gather(*bench.begin(0, 20))
        await asyncio.sleep(3600)
        await asyncio.gather(*bench.begin(20, 40))

    run(body)
