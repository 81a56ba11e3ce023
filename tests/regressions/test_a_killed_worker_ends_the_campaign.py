"""A campaign of the simulator of which a process is killed from outside fails, and waits no longer.

Story: multiprocessing.Pool starts another process and never learns that the seeds of the dead one
are lost; where the kernel had killed one for its memory, `make sim` stood still.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures.process import BrokenProcessPool

import pytest

from tests.sim.campaign import play


@pytest.mark.slow
def test_a_killed_worker_ends_the_campaign() -> None:
    before = set(multiprocessing.active_children())
    outcomes = play(range(100_000), 2)
    assert next(outcomes).seed == 0
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    workers.pop().kill()
    with pytest.raises(BrokenProcessPool):
        for _ in outcomes:
            pass


@pytest.mark.slow
def test_a_campaign_that_nobody_follows_any_more_ends_soon() -> None:
    outcomes = play(range(100_000), 2)
    assert next(outcomes).seed == 0
    outcomes.close()  # type: ignore[attr-defined]
