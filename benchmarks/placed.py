"""First reads of 4 KiB where the scheduler decides nothing: both ends on one core, or on two.

Left alone, the scheduler puts a reader and its server on one core or on two, and moves them about
from one round to the next: a read between two cores takes two to three times as long, whoever
answers, and so a ratio of `hot-small` says as much of the scheduler as of the servers. Here it has
no choice: the first two cores, which on some machines are one core's two threads. One reader, this
process, raw clients, 4 objects of 128 MiB; places drawn by Zipf's law (0.9), as in `hot-small`, but
each of them once, so that none is answered as it was before; a `nice -n 19` spinner on each core.
There are three servers of each kind, which have their turns: where a process happens to lie in
memory makes it a fifth slower or faster for as long as it lives.
`checking in Python` (checking_server.py) reads the range, hashes, compares and sends it, and does
nothing else that a cache does: what is left between it and nginx is all that a lane has for finding
its block, for versions, eviction and counting.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from benchmarks.checking_server import RawChecked
from benchmarks.harness import (
    MIB,
    Figure,
    children,
    cpu_seconds,
    dev_origin,
    in_turn,
    node,
    process,
    ratios,
)
from benchmarks.job import VALUE_BYTES, Job, ready_buffer
from benchmarks.lane_nginx import nginx
from benchmarks.objects import make_object
from benchmarks.rawlane import RawHttp, RawLane
from benchmarks.reader import plan
from benchmarks.spinner import spinners
from cachesvc.core.types import ObjectName
from cachesvc.devorigin.ports import free_ports

OBJECT_COUNT, OBJECT_BYTES, RANGE_BYTES, READ_COUNT = 4, 128 * MIB, 4096, 700
ONE, EACH = "one core", "a core each"
NGINX, CHECKING, LANE = "nginx", "checking in Python", "lane"
SERVER_COUNT = 3  # of each
_DRAWN = 4000  # of one seed, which is good for 20,000


@dataclass(frozen=True, slots=True)
class _Server:
    """Its processes, and one connection to it: key, start, and where the bytes go."""

    pids: Sequence[int]
    read: Callable[[str, int, memoryview], object]


@contextmanager
def on_cores(mine: int, theirs: int, pids: Sequence[int]) -> Iterator[None]:
    """This process on one core and all threads of others on another, until the end."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {mine})
    try:
        for pid in pids:
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {theirs})
        yield
    finally:
        os.sched_setaffinity(0, before)


def _first_reads(keys: list[str]) -> Iterator[tuple[str, int]]:
    """Places, each of them once."""
    seen = set()
    for seed in count():
        job = Job("ranges", "", keys, OBJECT_BYTES, range_bytes=RANGE_BYTES, zipf=0.9, seed=seed)
        for place in islice(plan(job), _DRAWN):
            if place not in seen:
                seen.add(place)
                yield place


def _round(server: _Server, places: list[tuple[str, int]]) -> tuple[float, float]:
    """p50 of a read, and the server's CPU time for one, in us."""
    view, read, samples = ready_buffer(RANGE_BYTES), server.read, []
    before_s = cpu_seconds(server.pids)
    for key, start in places:
        before = time.perf_counter()
        read(key, start, view)
        samples.append(time.perf_counter() - before)
    used_s = cpu_seconds(server.pids) - before_s
    return statistics.median(samples) * 1e6, used_s / len(places) * 1e6


def run(work: Path, rounds: int) -> dict[str, Any]:
    """The figures, or why there are none."""
    if shutil.which("nginx") is None:
        return {"skipped": "nginx is not installed (apt-get install nginx-light)"}
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return {"skipped": "there is only one core"}
    root, keys = work / "root", [str(number) for number in range(OBJECT_COUNT)]
    (root / "bench").mkdir(parents=True)
    for number, key in enumerate(keys):
        make_object(root / "bench" / key, number, OBJECT_BYTES)
    figures: dict[str, Any] = {}
    with ExitStack() as ends:
        origin = ends.enter_context(dev_origin(root))
        systems = {
            name: [
                ends.enter_context(start(work / f"{name}-{number}", root, origin, keys))
                for number in range(SERVER_COUNT)
            ]
            for name, start in ((NGINX, _nginx), (CHECKING, _checking), (LANE, _lane))
        }
        buffer = ready_buffer(VALUE_BYTES)
        for server in chain(*systems.values()):
            for key in keys:
                for start in range(0, OBJECT_BYTES, VALUE_BYTES):
                    server.read(key, start, buffer)
        every = [pid for server in chain(*systems.values()) for pid in server.pids]
        places = _first_reads(keys)
        with spinners():
            for name, theirs in ((ONE, cores[0]), (EACH, cores[1])):
                with on_cores(cores[0], theirs, every):
                    figures |= _measured(name, systems, places, rounds)
    return figures


@contextmanager
def _nginx(work: Path, root: Path, _origin: str, _keys: list[str]) -> Iterator[_Server]:
    work.mkdir()
    with nginx(root, work) as (server, address), closing(RawHttp(address)) as http:
        yield _Server(
            children(server.pid),
            lambda key, start, view: http.read_into(f"/bench/{key}", start, view),
        )


@contextmanager
def _checking(_work: Path, root: Path, _origin: str, _keys: list[str]) -> Iterator[_Server]:
    (port,) = free_ports(1)
    command = sys.executable, "-m", "benchmarks.checking_server", str(root), str(port)
    with process(*command) as server, closing(RawChecked(("127.0.0.1", port))) as checked:
        yield _Server(
            children(server.pid),
            lambda key, start, view: checked.read_into(f"bench/{key}", start, view),
        )


@contextmanager
def _lane(work: Path, _root: Path, origin: str, keys: list[str]) -> Iterator[_Server]:
    with node(work, origin) as server, closing(RawLane(server.lane)) as lane:
        versions = {key: lane.stat(ObjectName("bench", key)) for key in keys}
        yield _Server(
            children(server.process.pid),
            lambda key, start, view: lane.read_into(versions[key], start, view),
        )


def _measured(
    name: str,
    systems: dict[str, list[_Server]],
    places: Iterator[tuple[str, int]],
    rounds: int,
) -> dict[str, Any]:
    """The figures of one placement: rounds in turns, after one that does not count."""
    found: dict[str, list[tuple[float, float]]] = {system: [] for system in systems}
    for number in range(rounds + 1):
        some = list(islice(places, READ_COUNT))
        for system in in_turn(list(systems), number):
            found[system].append(_round(systems[system][number % SERVER_COUNT], some))
    p50 = {system: [us for us, _ in values[1:]] for system, values in found.items()}
    figures: dict[str, Any] = {}
    for system, values in found.items():
        figures[f"{name}, {system} p50 us"] = Figure.of(p50[system]).as_json()
        used = Figure.of([cpu_us for _, cpu_us in values[1:]])
        figures[f"{name}, {system} server CPU us"] = used.as_json()
        if system != NGINX:
            figures[f"{name}, {system} / nginx"] = ratios(p50[system], p50[NGINX]).as_json()
    return figures
