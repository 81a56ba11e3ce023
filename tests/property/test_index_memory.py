"""A million blocks cost at most 400 bytes each, with everything that belongs to them.

Measured as a node would feel it: the resident memory of a process of its own, after the index was
filled and then renewed twice over, so that the ghosts are full and the dicts as loose as they get.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKS = 1_000_000
SCRIPT = """
import gc, os, random, sys
from cachesvc.core.index import Index

def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

policy, blocks = sys.argv[1], int(sys.argv[2])
numbers = random.Random(7)
gc.collect()
before = resident_bytes()
index = Index(policy, blocks * 8_000_000)
for _ in range(blocks):
    index.add(numbers.randbytes(16), 8_000_000, numbers.getrandbits(64) | 1)
filled = resident_bytes()
most = filled
for step in range(2 * blocks):
    index.evicted(index.victim())
    index.add(numbers.randbytes(16), 8_000_000, numbers.getrandbits(64) | 1)
    if step % 1000 == 0:
        most = max(most, resident_bytes())
assert len(index) == blocks
print((filled - before) / blocks, (most - before) / blocks)
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy_name", ["s3fifo", "lru"])
def test_a_million_blocks_take_at_most_400_bytes_each(
    policy_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = subprocess.run(
        [sys.executable, "-c", SCRIPT, policy_name, str(BLOCKS)],
        capture_output=True,
        check=True,
        text=True,
    )
    filled, most = (float(figure) for figure in measured.stdout.split())
    with capsys.disabled():
        print(f"\n{policy_name}: {filled:.0f} bytes per block filled, {most:.0f} at most in use")
    assert filled < most <= 400
