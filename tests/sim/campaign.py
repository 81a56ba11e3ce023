"""Many histories, on as many processes as are given.

Rules: a history that broke (an exception out of the simulator itself) is an outcome with a
violation, so that no seed is lost; a process that dies ends the campaign with BrokenProcessPool.
No future is cancelled here: a pool that breaks meanwhile would leave its processes behind.
"""

from __future__ import annotations

import gc
import multiprocessing
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from tests.sim.history import Outcome, run

_CHUNK = 10
_AHEAD = 4  # chunks of each process that wait or run


def play(seeds: range, workers: int) -> Iterator[Outcome]:
    """The outcomes of all seeds, in order.

    Raises: BrokenProcessPool if a process was killed.
    """
    if workers <= 1:
        yield from map(one, seeds)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=gc.freeze)
    under_way: deque[Future[list[Outcome]]] = deque()
    try:
        for first in range(0, len(seeds), _CHUNK):
            under_way.append(pool.submit(_some, seeds[first : first + _CHUNK]))
            if len(under_way) >= _AHEAD * workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _some(seeds: range) -> list[Outcome]:
    return [one(seed) for seed in seeds]


def one(seed: int) -> Outcome:
    """The outcome of a seed, whatever happens."""
    try:
        outcome = run(seed)
    except Exception:
        outcome = Outcome(seed, [f"the simulator broke: {traceback.format_exc()}"], Counter())
    if seed % _CHUNK == 0:
        gc.collect()
    return outcome
