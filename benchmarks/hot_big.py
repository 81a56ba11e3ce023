"""Hot and big: 8 MiB ranges of 4 objects of 256 MiB, 1, 4 and 16 at once.

Everything is in the page cache, or in the memory of its server. Each measurement reads all ranges
in order, or as many as it gets to in the time limit. "In place" adds the bytes up where they lie,
mapping included; the others deliver them into memory of the reader. What goes over a socket and
what is in place is compared in two more cases, in which all do the same: every reader adds up what
it got, 64 bits at a time, or nobody does. "First" maps with clients that have mapped nothing yet,
"again" with one that has mapped the objects before, as a process does that loads them again.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.catalog import ARRAY, SYSTEMS, System
from benchmarks.job import MIB, Job
from benchmarks.measure import (
    Bench,
    Case,
    Outcome,
    addresses,
    run_apart,
    run_case,
    scratch,
    usable,
)
from benchmarks.objects import HOT_SERVERS, hot_objects
from benchmarks.peers import Servers

_COPIES = ("region", "local_mmap")  # of interest where ranges are small
ADDED_UP, UNREAD = "8 MiB, 1 at once, all add up", "8 MiB, 1 at once, nobody adds up"


def case_name(at_once: int) -> str:
    return f"8 MiB, {at_once} at once"


def run(bench: Bench, work: Path) -> Outcome:
    outcome = Outcome.noted(__doc__)
    count, object_bytes, limit_s = (2, 16 * MIB, 0.1) if bench.quick else (4, 256 * MIB, 0.5)
    systems = [one for one in SYSTEMS.values() if one.reader not in _COPIES]
    with Servers(bench.environment, work, HOT_SERVERS) as servers:
        folder = servers.root / "bench"
        keys = hot_objects(servers, "big", count, object_bytes)
        systems = usable(bench, outcome, servers, systems)

        def case(name: str, at_once: int = 1, add_up: bool | None = None) -> Case:
            def jobs(system: System, _: int) -> list[Job]:
                return [
                    Job(
                        "ranges", system.reader, keys, object_bytes, addresses(servers, system),
                        at_once=at_once, limit_s=limit_s, folder=str(folder), scratch=scratch(work),
                        add_up=add_up,
                    )
                ]  # fmt: skip

            return Case(name, jobs)

        counts = (1, 4) if bench.quick else (1, 4, 16)
        cases = [case(case_name(at_once), at_once) for at_once in counts]
        run_apart(bench, outcome, servers, systems, cases)
        if (lacking := bench.environment.lacking(["numpy"])) is not None:
            outcome.skipped["all that add up"] = lacking
            return outcome
        compared = [one for one in systems if one.over_socket or one.in_place or one.own_files]
        run_case(bench, outcome, servers, compared, case(ADDED_UP, add_up=True))
        compared = [one for one in compared if one.name != ARRAY]
        run_case(bench, outcome, servers, compared, case(UNREAD, add_up=False))
    return outcome
