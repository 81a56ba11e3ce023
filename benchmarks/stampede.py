"""Stampede: 64 clients read one cold object at once, in 8 processes of 8 threads (quick: in 2).

The origin is shaped as for the cold fill; the object has 32 MiB and is read in 8 MiB ranges, from
the first to the last by every client, each with connections of its own. `GETs per extent` counts
how often a range was fetched from the origin; `origin bytes / object` finds ranges that overlap.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import origin_log
from benchmarks.catalog import (
    CEILINGS,
    GRPC,
    LANE,
    LANE_RAW,
    NGINX_CACHE,
    SYSTEMS,
    UNIX,
    VARNISH,
    System,
)
from benchmarks.job import MIB, Job
from benchmarks.measure import Bench, Case, Outcome, addresses, run_case, usable
from benchmarks.objects import make_object
from benchmarks.peers import Servers

PROCESSES, QUICK_PROCESSES, THREADS = 8, 2, 8
CASE = "64 clients, one cold object of 32 MiB"
QUICK_CASE = "16 clients, one cold object of 32 MiB"
_DIRECT = System("direct, raw HTTP", "http_raw", "origin")
_CACHES = (LANE_RAW, LANE, GRPC, UNIX, NGINX_CACHE, VARNISH)
_BASE = "stampede"


def run(bench: Bench, work: Path) -> Outcome:
    outcome = Outcome.noted(__doc__)
    object_bytes = (8 if bench.quick else 32) * MIB
    names = ("node", "sendfile", "nginx cache", "varnish", "origin")
    systems = [SYSTEMS[name] for name in (*CEILINGS, *_CACHES)]
    with Servers(bench.environment, work, names, shape=origin_log.SHAPE) as servers:
        bucket = servers.root / "bench"
        make_object(bucket / _BASE, 0, object_bytes)

        keys: dict[str, str] = {}  # what each system read last

        def jobs(system: System, number: int) -> list[Job]:
            key = _BASE
            if system.name not in CEILINGS:
                key = f"stampede-{system.name}-{number}"
                key = origin_log.new_key(servers.origin, bucket, _BASE, key)
            keys[system.name] = key
            origin_log.forget(servers.origin)
            job = Job(
                "ranges", system.reader, [key], object_bytes, addresses(servers, system),
                at_once=THREADS, cold=True, each=True,
            )  # fmt: skip
            return [job] * (QUICK_PROCESSES if bench.quick else PROCESSES)

        def after(system: System, _: int) -> dict[str, float]:
            if system.name in CEILINGS:
                return {}
            return origin_log.gets(servers.origin, keys[system.name], object_bytes)

        systems = usable(bench, outcome, servers, [*systems, _DIRECT])
        name = QUICK_CASE if bench.quick else CASE
        run_case(bench, outcome, servers, systems, Case(name, jobs, after))
    return outcome
