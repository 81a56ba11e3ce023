"""A Parquet table as an analytic engine reads it: a full scan, and a scattered read.

The two workloads of the article by ClickHouse that this project follows, in its five
configurations: the local disk cold and hot; S3 directly; the cache cold; the cache hot with the
reader cold (a new process); and six readers at once. pyarrow reads through each. The scan reads and
sums every column of every row group; the scattered read takes single columns of single row groups,
512 KiB each, drawn by chance. The table has 64 MiB; the origin is shaped as for the cold fill.
Neither pyarrow's nor the caches' readers know the table from before. The ceilings move the bytes
of the file in 8 MiB ranges, and parse nothing.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks import origin_log
from benchmarks.catalog import CEILINGS, SYSTEMS, System
from benchmarks.environment import ROOT
from benchmarks.job import MIB, Job
from benchmarks.measure import Bench, Case, Outcome, addresses, run_case, usable
from benchmarks.objects import warm
from benchmarks.peers import Servers
from benchmarks.table import GROUP_ROWS

SCAN, SCATTER, SIX = "full scan", "scattered read", "six readers at once"
_S3FS = ("pyarrow", "s3fs")
_COLD = (
    System("local disk, cold", "local", "", ("pyarrow",)),
    System("cachesvc lane, cold", "cache_lane", "node", ("pyarrow",)),
    System("nginx proxy_cache, pyarrow, cold", "arrow", "nginx cache", ("pyarrow",)),
)
_HOT = (
    System("local disk, hot", "local", "", ("pyarrow",)),
    System("direct S3, pyarrow", "arrow", "origin", ("pyarrow",)),
    System("direct S3, s3fs", "s3fs", "origin", _S3FS),
    System("cachesvc lane, hot", "cache_lane", "node", ("pyarrow",)),
    System("cachesvc unix, hot", "cache_unix", "node", ("pyarrow", "unix")),
    System("nginx proxy_cache, pyarrow, hot", "arrow", "nginx cache", ("pyarrow",)),
)
_BASE = "table.parquet"


def _uncached(path: Path) -> None:
    """Let the page cache forget a file."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def run(bench: Bench, work: Path) -> Outcome:
    outcome = Outcome.noted(__doc__)
    lacking = bench.environment.lacking(["numpy", "pyarrow"])
    if lacking:
        outcome.skipped["all"] = lacking
        return outcome
    rows = GROUP_ROWS * (4 if bench.quick else 16)
    names = ("node", "sendfile", "nginx cache", "origin")
    with Servers(bench.environment, work, names, shape=origin_log.SHAPE) as servers:
        bucket = servers.root / "bench"
        path = bucket / _BASE
        subprocess.run(
            [bench.environment.python, "-m", "benchmarks.table", str(path), str(rows)],
            cwd=ROOT, check=True, timeout=120,
        )  # fmt: skip
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
        warm(servers, [_BASE], path.stat().st_size)
        ceilings = [SYSTEMS[name] for name in CEILINGS]
        one = usable(bench, outcome, servers, [*ceilings, *_COLD, *_HOT])
        six = [system for system in one if system not in _COLD and system.reader != "s3fs"]
        for workload, reads in ((SCAN, 0), (SCATTER, 8 if bench.quick else 32)):
            run_case(bench, outcome, servers, one, _case(servers, path, workload, reads, 1))
            run_case(bench, outcome, servers, six, _case(servers, path, workload, reads, 6))
    return outcome


def _case(servers: Servers, path: Path, workload: str, reads: int, readers: int) -> Case:
    def jobs(system: System, number: int) -> list[Job]:
        key = _BASE
        if system in _COLD and system.server:
            key = f"{workload}-{system.name}-{number}"
            key = origin_log.new_key(servers.origin, path.parent, _BASE, key)
        elif system in _COLD:
            _uncached(path)
        size_bytes = path.stat().st_size
        if system.name in CEILINGS:
            ceiling = Job(
                "ranges", system.reader, [key], size_bytes, addresses(servers, system),
                range_bytes=8 * MIB, folder=str(path.parent), tagged=False,
            )  # fmt: skip
            return [ceiling] * readers
        return [
            Job(
                "table", system.reader, [key], size_bytes, addresses(servers, system),
                folder=str(path.parent), seed=number * readers + reader, extra={"reads": reads},
            )
            for reader in range(readers)
        ]  # fmt: skip

    return Case(workload if readers == 1 else f"{workload}, {SIX}", jobs)
