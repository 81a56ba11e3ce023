"""Cold: a large object that no cache has seen, from an origin with the manners of S3.

The origin takes 30 ms to the first byte (lognormal, p99 200 ms) and sends 90 MB/s on a connection.
256 MiB are read through each cache, every time under a new key, and directly by each library: as
8 MiB ranges, 16 at once, and in one call where a system reads an object in parallel by itself.
The caches are full before, as they are in service: what is filled takes the place, and the memory,
of something else (docs/decisions/0013-readahead.md). Server CPU is that of the cache, without the
origin's. `relay in Python` is a ceiling: a process that receives, writes to a file and sends on,
and does nothing else that a cache does; `hashing relay in Python` also hashes, as the node does.
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
from benchmarks.environment import lack_of_room
from benchmarks.job import MIB, Job
from benchmarks.measure import Bench, Case, Outcome, addresses, measure, run_case, usable
from benchmarks.objects import make_object
from benchmarks.peers import Servers

RANGES, WHOLE = "256 MiB, 8 MiB ranges, 16 at once", "256 MiB, in one call"
DIRECT = (
    System("direct, raw HTTP", "http_raw", "origin"),
    System("direct, boto3", "boto3_get", "origin", ("boto3",)),
    System("direct, obstore", "obstore_get", "origin", ("obstore",)),
    System("direct, s3fs", "s3fs_get", "origin", ("s3fs",)),
    System("direct, pyarrow", "pyarrow_get", "origin", ("pyarrow",)),
)
RELAY = System("relay in Python, raw client", "raw_sendfile", "relay")
HASHING_RELAY = System("hashing relay in Python, raw client", "raw_sendfile", "hashing relay")
DIRECT_WHOLE = System("direct, boto3 transfer manager", "boto3_download", "origin", ("boto3",))
_CACHES = (LANE_RAW, LANE, GRPC, UNIX, NGINX_CACHE, VARNISH)
_CAPACITY_OBJECTS = 4  # what a cache may hold
_BASE = "cold"


def run(bench: Bench, work: Path) -> Outcome:
    outcome = Outcome.noted(__doc__)
    lacking = None if bench.quick else lack_of_room(work, disk_gib=16)
    if lacking:
        outcome.skipped["all"] = lacking
        return outcome
    object_bytes = (16 if bench.quick else 256) * MIB
    names = (
        "node", "sendfile", "relay", "hashing relay", "nginx cache", "varnish", "origin",
    )  # fmt: skip
    with Servers(
        bench.environment, work, names, shape=origin_log.SHAPE, capacity="1GiB"
    ) as servers:
        bucket = servers.root / "bench"
        make_object(bucket / _BASE, 0, object_bytes)
        if not bench.quick:
            _fill_up(bench, outcome, servers, _case(servers, bucket, object_bytes, RANGES))
        systems = [SYSTEMS[name] for name in (*CEILINGS, *_CACHES)]
        systems += [RELAY, HASHING_RELAY, *DIRECT]
        run_case(
            bench, outcome, servers, usable(bench, outcome, servers, systems),
            _case(servers, bucket, object_bytes, RANGES),
        )  # fmt: skip
        systems = [SYSTEMS[name] for name in (LANE, GRPC, UNIX)] + [DIRECT_WHOLE]
        run_case(
            bench, outcome, servers, usable(bench, outcome, servers, systems),
            _case(servers, bucket, object_bytes, WHOLE),
        )  # fmt: skip
    return outcome


def _fill_up(bench: Bench, outcome: Outcome, servers: Servers, case: Case) -> None:
    """Have the caches that keep files on disk evict from the first measurement on."""
    fillable = [SYSTEMS[LANE], SYSTEMS[NGINX_CACHE], RELAY, HASHING_RELAY]
    for system in usable(bench, outcome, servers, fillable):
        for number in range(_CAPACITY_OBJECTS + 1):
            measure(bench.environment, case.jobs(system, -1 - number), None)


def _case(servers: Servers, bucket: Path, object_bytes: int, name: str) -> Case:
    keys = {"": _BASE}

    def jobs(system: System, number: int) -> list[Job]:
        key = _BASE
        if system.name not in CEILINGS:
            key = f"cold-{name}-{system.name}-{number}"
            key = origin_log.new_key(servers.origin, bucket, _BASE, key)
        keys[system.name] = key
        origin_log.forget(servers.origin)
        whole = name == WHOLE
        return [
            Job(
                "ranges", system.reader, [key], object_bytes, addresses(servers, system),
                range_bytes=object_bytes if whole else 8 * MIB, at_once=1 if whole else 16,
                cold=True, folder=str(bucket),
            )
        ]  # fmt: skip

    def after(system: System, _: int) -> dict[str, float]:
        if system.name in CEILINGS:
            return {}
        found = origin_log.gets(servers.origin, keys[system.name], object_bytes)
        return {"origin bytes / object": found["origin bytes / object"], "GETs": found["GETs"]}

    return Case(name, jobs, after)
