"""One measurement's reading process: `python -m benchmarks.reader JOB`, JOB in JSON.

Each measurement is a process of its own, because what an earlier reader has freed decides how fast
a process receives (docs/decisions/0007-synchronous-grpc-server.md). It makes itself ready, says
`ready`, waits for a line, works with the clock running, prints its figures as JSON, and holds what
it read until it gets another line, so that its memory can be looked at. If that line is a job, it
goes on with it: where ranges are small, starting a process would take most of the time.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import systems
from benchmarks.job import IN_PLACE, PAGE, PAGE_BYTES, Job, Read

_DRAW_COUNT = 20_000
_STRIDE = 2_654_435_761  # scatters neighbours in rank over all objects
Timed = Callable[[], dict[str, float]]


def plan(job: Job) -> Iterator[tuple[str, int]]:
    """The ranges to read: all in order, or drawn by Zipf's law for ever; made before it returns."""
    per_object = job.object_bytes // job.range_bytes
    if not job.zipf:
        starts = range(0, per_object * job.range_bytes, job.range_bytes)
        return iter([(key, start) for key in job.keys for start in starts])
    count = per_object * len(job.keys)
    weights = list(itertools.accumulate(rank**-job.zipf for rank in range(1, count + 1)))
    ranks = random.Random(job.seed).choices(range(count), cum_weights=weights, k=_DRAW_COUNT)
    stride = next(odd for odd in itertools.count(_STRIDE, 2) if math.gcd(odd, count) == 1)
    places = (divmod(rank * stride % count, per_object) for rank in ranks)
    return itertools.cycle([(job.keys[key], number * job.range_bytes) for key, number in places])


class _Tags:
    """Whether a range is the one that was asked for: its first page says so."""

    def __init__(self, job: Job) -> None:
        self._numbers = {key: number for number, key in enumerate(job.keys)}
        self._tagged = job.tagged and job.system != "memory_copy"

    def check(self, key: str, start: int, length: int, found: Any) -> None:
        if not self._tagged:
            return
        if len(found) != length:
            raise RuntimeError(f"{key} from {start}: {len(found)} bytes instead of {length}")
        if PAGE.unpack_from(found) != (self._numbers[key], start // PAGE_BYTES):
            raise RuntimeError(f"{key} from {start}: other bytes")


def ranges(job: Job) -> Timed:
    """Ranges of objects by so many threads, each with its own connection or buffer."""
    in_place = job.system.endswith(IN_PLACE)
    adds_up = in_place if job.add_up is None else job.add_up
    count = job.at_once if job.each else 1
    openers = [systems.opener_of(job) for _ in range(count)] * (job.at_once // count)
    reads = [opener() for opener in openers]
    shared = list(plan(job)) if not job.zipf else []
    if not job.cold:
        for key in job.keys:
            found = reads[0](key, 0, job.range_bytes)
            if adds_up:
                systems.add_up(found)
        for read in reads[1:]:
            read(job.keys[0], 0, job.range_bytes)
        if in_place:
            systems.Mappings.forget()
    tags = _Tags(job)
    whole = plan(job)
    lock = threading.Lock()

    def take() -> tuple[str, int] | None:
        with lock:
            return next(whole, None)

    def timed() -> dict[str, float]:
        samples: list[list[float]] = [[] for _ in reads]
        failures: list[BaseException] = []
        deadline = time.perf_counter() + job.limit_s

        def walk(read: Read, mine: list[float]) -> None:
            own = iter(shared)
            try:
                while not mine or time.perf_counter() < deadline:
                    place = next(own, None) if job.each else take()
                    if place is None:
                        return
                    before = time.perf_counter()
                    found = read(*place, job.range_bytes)
                    if adds_up:
                        systems.add_up(found)
                    mine.append(time.perf_counter() - before)
                    tags.check(*place, job.range_bytes, found)
            except BaseException as error:
                failures.append(error)

        threads = [
            threading.Thread(target=walk, args=pair) for pair in zip(reads, samples, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        merged = sorted(itertools.chain.from_iterable(samples))
        return {"bytes": len(merged) * job.range_bytes} | percentiles(merged)

    return timed


def percentiles(ordered: list[float]) -> dict[str, float]:
    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e6

    found = {"p50 us": at(0.5), "p99 us": at(0.99), "p99.9 us": at(0.999)}
    return found | {"reads": float(len(ordered))}


def _work(name: str) -> Callable[[Job], Timed]:
    """The kind of work; those that need other modules are imported with them."""
    if name == "weights":
        from benchmarks.weights import weights

        return weights
    if name == "table":
        from benchmarks.table import table

        return table
    return ranges


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    told = sys.argv[1]
    while told:
        job = Job(**json.loads(told))
        timed = _work(job.work)(job)
        print("ready", flush=True)
        sys.stdin.readline()
        cpu, started = _cpu_seconds(), time.perf_counter()
        figures = timed()
        seconds = time.perf_counter() - started
        figures |= {"seconds": seconds, "client CPU s": _cpu_seconds() - cpu}
        print(json.dumps(figures), flush=True)
        told = sys.stdin.readline().strip()


if __name__ == "__main__":
    main()
