"""The Parquet table, and reading it, in the reading process.

`python -m benchmarks.table PATH ROWS` makes the table: 8 columns of 8 bytes a value, neither
compressed nor dictionary-encoded, so that reading it is about bytes and not about decoding; row
groups of 65,536 rows, a column of one group is 512 KiB.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import peer_systems
from benchmarks.job import Job
from benchmarks.reader import percentiles

COLUMN_COUNT, GROUP_ROWS = 8, 65_536


def make_table(path: str, rows: int) -> None:
    import numpy
    import pyarrow
    from pyarrow import parquet

    dice = numpy.random.default_rng(1)
    columns = {
        f"c{number}": dice.integers(0, 1 << 62, rows) if number % 2 else dice.random(rows)
        for number in range(COLUMN_COUNT)
    }
    parquet.write_table(
        pyarrow.table(columns), path,
        row_group_size=GROUP_ROWS, compression="NONE", use_dictionary=False,
    )  # fmt: skip


def _opener(job: Job) -> Callable[[], Any]:
    """What opens the table, by the way of the system; its client is there before the clock runs."""
    (key,) = job.keys
    if job.system == "local":
        return lambda: f"{job.folder}/{key}"
    if job.system == "arrow":
        s3 = peer_systems.arrow_filesystem(job)
        return lambda: s3.open_input_file(f"bench/{key}")
    if job.system == "s3fs":
        fs = peer_systems.s3_filesystem(job)
        return lambda: fs.open(f"bench/{key}")
    from cachesvc_client import CacheClient

    client = CacheClient(job.addresses["unix" if job.system == "cache_unix" else "lane"])
    return lambda: client.open(f"s3://bench/{key}")


def table(job: Job) -> Callable[[], dict[str, float]]:
    """A full scan, or `extra["reads"]` columns of row groups, drawn by chance."""
    from pyarrow import compute, parquet

    open_table = _opener(job)
    reads = job.extra.get("reads", 0)
    dice = random.Random(job.seed)

    def timed() -> dict[str, float]:
        samples, total = [], 0
        file = parquet.ParquetFile(open_table(), pre_buffer=True)
        groups = range(file.num_row_groups)
        wanted: list[tuple[int, list[str] | None]] = [(group, None) for group in groups]
        if reads:
            names = file.schema_arrow.names
            wanted = [(dice.choice(groups), [dice.choice(names)]) for _ in range(reads)]
        for group, columns in wanted:
            before = time.perf_counter()
            found = file.read_row_group(group, columns=columns, use_threads=False)
            for column in found.columns:
                compute.sum(column)
            samples.append(time.perf_counter() - before)
            total += found.nbytes
        return {"bytes": total} | percentiles(sorted(samples))

    return timed


if __name__ == "__main__":
    make_table(sys.argv[1], int(sys.argv[2]))
