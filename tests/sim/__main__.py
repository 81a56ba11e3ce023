"""`python -m tests.sim [N] [--seed S] [--trace] [--workers W]`: N histories, from seed S on.

A failure prints its seed, what was violated and how to play it again; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.sim.campaign import play
from tests.sim.history import Outcome, run

MOST_SHOWN = 10


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("count", metavar="N", nargs="?", type=int, help="default 1000, or 1")
    parser.add_argument("--seed", type=int, help="the first seed, default 0")
    parser.add_argument("--trace", action="store_true", help="print all that happened")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    first = asked.seed or 0
    count = asked.count or (1000 if asked.seed is None else 1)
    if asked.trace:
        return _traced(range(first, first + count))
    return _campaign(range(first, first + count), asked.workers)


def _traced(seeds: range) -> int:
    failed = False
    for seed in seeds:
        outcome = run(seed, trace=True)
        print("\n".join(outcome.lines))
        print(f"seed {seed}: digest {outcome.digest}, {len(outcome.violations)} violations")
        failed |= bool(outcome.violations)
    return int(failed)


def _campaign(seeds: range, workers: int) -> int:
    began_at = time.monotonic()
    counts: Counter[str] = Counter()
    failures = 0
    for done, outcome in enumerate(play(seeds, workers), 1):
        counts += outcome.counts
        if outcome.violations:
            failures += 1
            if failures <= MOST_SHOWN:
                print(f"\r{explained(outcome)}")
        if done % 50 == 0 or done == len(seeds):
            rate = done / (time.monotonic() - began_at)
            sys.stdout.write(f"\r{done}/{len(seeds)} histories, {rate:.0f}/s, {failures} failed ")
            sys.stdout.flush()
    print()
    print(", ".join(f"{what} {count}" for what, count in sorted(counts.items())))
    return int(failures > 0)


def explained(outcome: Outcome) -> str:
    """A failure for people: the seed, what was violated, how to see it again."""
    lines = [f"seed {outcome.seed}:", *(f"  {one}" for one in outcome.violations)]
    lines.append(f"  again: python -m tests.sim --seed {outcome.seed} --trace")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
