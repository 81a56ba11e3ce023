"""Hot and big: 8 MiB ranges of 4 objects of 256 MiB, 1, 4 and 16 at once.

Everything is in the page cache, or in the memory of its server. Each measurement reads all ranges
in order, or as many as it gets to in the time limit. "In place" adds the bytes up where they lie
(mapping included), the others deliver them into memory of the reader.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.catalog import SYSTEMS, System
from benchmarks.job import MIB, Job
from benchmarks.measure import Bench, Case, Outcome, addresses, run_case, scratch, usable
from benchmarks.objects import make_object, warm
from benchmarks.peers import Servers

_SERVERS = ("node", "sendfile", "nginx", "nginx cache", "varnish", "redis")
_COPIES = ("region", "local_mmap")  # of interest where ranges are small


def case_name(at_once: int) -> str:
    return f"8 MiB, {at_once} at once"


def run(bench: Bench, work: Path) -> Outcome:
    outcome = Outcome(" ".join((__doc__ or "").split()))
    count, object_bytes, limit_s = (2, 16 * MIB, 0.1) if bench.quick else (4, 256 * MIB, 0.5)
    keys = [f"big-{number}" for number in range(count)]
    systems = [one for one in SYSTEMS.values() if one.reader not in _COPIES]
    with Servers(bench.environment, work, _SERVERS) as servers:
        folder = servers.root / "bench"
        for number, key in enumerate(keys):
            make_object(folder / key, number, object_bytes)
        warm(servers, keys, object_bytes)
        systems = usable(bench, outcome, servers, systems)
        for at_once in (1, 4) if bench.quick else (1, 4, 16):

            def jobs(system: System, _: int, at_once: int = at_once) -> list[Job]:
                return [
                    Job(
                        "ranges", system.reader, keys, object_bytes, addresses(servers, system),
                        at_once=at_once, limit_s=limit_s, folder=str(folder), scratch=scratch(work),
                    )
                ]  # fmt: skip

            run_case(bench, outcome, servers, systems, Case(case_name(at_once), jobs))
    return outcome
