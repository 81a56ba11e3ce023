"""A busy loop at the lowest priority on each core, so that no core sleeps between two requests.

Waking an idle core costs 0.1 to 0.5 ms on a virtual machine and hides everything else: workloads
about the latency of small reads run with it, alike for all systems, and say so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.harness import process

_LOOP = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.nice(19)
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def spinners() -> Iterator[None]:
    with ExitStack() as exits:
        for core in sorted(os.sched_getaffinity(0)):
            exits.enter_context(process(sys.executable, "-c", _LOOP, str(core), ready=False))
        yield
