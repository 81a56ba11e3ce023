"""Hot and small: ranges of 4, 64 and 256 KiB, drawn by Zipf's law (0.9), 1, 16 and 64 at once.

A `nice -n 19` spinner runs on each core, alike for all systems, because waking an idle core takes
longer than the read. The ranges lie in 4 objects of 256 MiB; what is drawn is the same for all.
"At once" are threads of one reading process, so that at 16 and 64 the interpreter of the reader is
a part of what is measured, for every system that is read from Python. In a round, one process
reads a system in all sizes and counts: most of the time would else be spent on starting readers.
So the clients' memory, a peak, grows from one line to the next. `checking in Python` is a ceiling:
a server that reads, hashes, compares and sends, and does nothing else that a cache does.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.catalog import SYSTEMS, System
from benchmarks.job import MIB, Job
from benchmarks.measure import Bench, Case, Outcome, addresses, run_cases, scratch, usable
from benchmarks.objects import HOT_SERVERS, hot_objects
from benchmarks.peers import Servers
from benchmarks.spinner import spinners

CHECKING = System("checking in Python, raw client", "raw_checked", "checking")


def case_name(size_kib: int, at_once: int) -> str:
    return f"{size_kib} KiB, {at_once} at once"


def run(bench: Bench, work: Path) -> Outcome:
    outcome = Outcome.noted(__doc__)
    count, object_bytes, limit_s = (2, 16 * MIB, 0.05) if bench.quick else (4, 256 * MIB, 0.2)
    systems = [one for one in SYSTEMS.values() if not one.in_place] + [CHECKING]
    with Servers(bench.environment, work, (*HOT_SERVERS, CHECKING.server)) as servers:
        folder = servers.root / "bench"
        keys = hot_objects(servers, "small", count, object_bytes)
        systems = usable(bench, outcome, servers, systems)

        def case(size_kib: int, at_once: int) -> Case:
            def jobs(system: System, number: int) -> list[Job]:
                return [
                    Job(
                        "ranges", system.reader, keys, object_bytes, addresses(servers, system),
                        range_bytes=size_kib << 10, at_once=at_once, zipf=0.9, limit_s=limit_s,
                        seed=number, folder=str(folder), scratch=scratch(work),
                    )
                ]  # fmt: skip

            return Case(case_name(size_kib, at_once), jobs)

        with spinners():
            sizes, counts = ((4,), (1, 16)) if bench.quick else ((4, 64, 256), (1, 16, 64))
            cases = [case(size_kib, at_once) for size_kib in sizes for at_once in counts]
            run_cases(bench, outcome, servers, systems, cases)
    return outcome
