"""Safetensors to numpy: a file of 1 GiB with 300 tensors, hot, loaded and read once.

GB/s counts until every array has been summed up, `load s` until the arrays are there. All systems
get views of what they delivered; `local safetensors` is the library's own loader of a local file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.catalog import (
    CEILINGS,
    GRPC,
    LANE,
    MMAP_IN_PLACE,
    NGINX_RAW,
    REGION_FIRST,
    SYSTEMS,
    UNIX,
    System,
)  # fmt: skip
from benchmarks.environment import lack_of_room
from benchmarks.job import MIB, Job
from benchmarks.measure import Bench, Case, Outcome, addresses, run_case, scratch, usable
from benchmarks.objects import make_object, warm
from benchmarks.peers import Servers
from benchmarks.weights import make_weights

ONE, EIGHT = "1 GiB, 300 tensors", "1 GiB, 300 tensors, 8 processes"
LOCAL = System("local safetensors", "safetensors_file", "", ("numpy", "safetensors"))
_S3 = ("boto3", "s3fs", "obstore", "pyarrow S3FileSystem", "fsspec filecache")
_ONE = (*CEILINGS, LANE, GRPC, UNIX, REGION_FIRST, NGINX_RAW, *_S3, MMAP_IN_PLACE)
_EIGHT = (LANE, UNIX, REGION_FIRST, MMAP_IN_PLACE)


def run(bench: Bench, work: Path) -> Outcome:
    return load(bench, work, ONE, 1, _ONE, __doc__)


def load(
    bench: Bench, work: Path, name: str, processes: int, names: Sequence[str], note: str | None
) -> Outcome:
    """The weights, loaded by so many processes at once."""
    outcome = Outcome.noted(note)
    memory_gib = 4 + processes
    lacking = bench.environment.lacking(["numpy"])
    if not lacking and not bench.quick:
        lacking = lack_of_room(work, memory_gib=memory_gib)
    if lacking:
        outcome.skipped["all"] = lacking
        return outcome
    size_bytes, tensor_count = (16 * MIB, 30) if bench.quick else (1024 * MIB, 300)
    systems = [SYSTEMS[one] for one in names] + [LOCAL]
    with Servers(bench.environment, work, ("node", "sendfile", "nginx")) as servers:
        folder = servers.root / "bench"
        make_object(work / "bytes", 0, size_bytes)
        made_bytes = make_weights(folder / "weights", work / "bytes", tensor_count)
        (work / "bytes").unlink()
        warm(servers, ["weights"], made_bytes)

        def jobs(system: System, _: int) -> list[Job]:
            ceiling = system.name in CEILINGS
            job = Job(
                "ranges" if ceiling else "weights", system.reader, ["weights"],
                made_bytes, addresses(servers, system),
                range_bytes=8 * MIB if ceiling else made_bytes, folder=str(folder),
                scratch=scratch(work), tagged=False, extra={"tensor_count": tensor_count},
            )  # fmt: skip
            return [job] * processes

        run_case(
            bench, outcome, servers, usable(bench, outcome, servers, systems), Case(name, jobs)
        )
    for row in outcome.cases.get(name, {}).values():
        row["PSS growth / weights"] = [
            mib * MIB / made_bytes for mib in row.pop("PSS growth MiB", [])
        ]
        for latency in ("p50 us", "p99 us", "p99.9 us"):
            row.pop(latency, None)
    return outcome


def run_eight(bench: Bench, work: Path) -> Outcome:
    """Eight processes on one host load the same weights at the same time."""
    note = (
        "Eight processes load the same 1 GiB of weights at once, and hold them. `PSS growth /"
        " weights` is what all readers and the server together take more than before, in copies"
        " of the weights, while all hold them: near 1 where all share one copy in the page cache,"
        " 8 where each has its own. GB/s are those of all eight together."
    )
    return load(bench, work, EIGHT, 8, _EIGHT, note)
