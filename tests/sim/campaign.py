"""Many histories, on as many processes as are given.

Rules: outcomes come in any order; a history that broke (an exception out of the simulator itself)
is an outcome with a violation, so that no seed is lost.
"""

from __future__ import annotations

import gc
import multiprocessing
import traceback
from collections import Counter
from collections.abc import Iterator

from tests.sim.history import Outcome, run

_CHUNK = 10


def play(seeds: range, workers: int) -> Iterator[Outcome]:
    """The outcomes of all seeds."""
    if workers <= 1:
        yield from map(one, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=gc.freeze) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=_CHUNK)


def one(seed: int) -> Outcome:
    """The outcome of a seed, whatever happens."""
    try:
        outcome = run(seed)
    except Exception:
        outcome = Outcome(seed, [f"the simulator broke: {traceback.format_exc()}"], Counter())
    if seed % _CHUNK == 0:
        gc.collect()
    return outcome
