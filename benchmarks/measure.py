"""Measuring: reading processes beside a server, round by round, and what comes out of it.

Rules: all systems of a case run one after another in every round, in turning order. Readers and
servers are warm where the workload is hot, so that every round counts; nothing is looked at while
the clock runs. A system that fails is left out of its case, with its last words as the reason.

Story: `Case` is one line of conditions; `run_case` measures its systems; `measure_in_turn` starts
the reading processes, waits until all are ready, lets them go at once, and adds the figures up.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.catalog import System
from benchmarks.environment import ROOT, Environment
from benchmarks.harness import ENVIRONMENT, CpuMeter, Figure, in_turn
from benchmarks.job import Job
from benchmarks.memory import forget_peak, peak_rss_mib, pss_mib
from benchmarks.peers import Server, Servers, unix_lane

GIB = 1 << 30
_LIMIT_S = 120


class ReaderFailed(Exception):
    """A reading process ended without figures; the text is its last line."""


@dataclass(frozen=True, slots=True)
class Bench:
    """How this run measures. quick: small sizes, to see that everything works."""

    environment: Environment
    rounds: int
    quick: bool


@dataclass(slots=True)
class Outcome:
    """What a workload found: note, case -> system -> figure -> values by round; why not."""

    note: str
    cases: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def noted(cls, text: str | None) -> Self:
        """With the words of a docstring as its note."""
        return cls(" ".join((text or "").split()))

    def add(self, case: str, system: str, figures: dict[str, float]) -> None:
        row = self.cases.setdefault(case, {}).setdefault(system, {})
        for name, value in figures.items():
            row.setdefault(name, []).append(value)

    def values(self, case: str, system: str, figure: str) -> list[float] | None:
        return self.cases.get(case, {}).get(system, {}).get(figure)


class _Reader:
    """One reading process, by its own handle."""

    def __init__(self, python: str, job: Job) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        paths = os.pathsep.join((str(ROOT), str(ROOT / "client")))
        self.child = subprocess.Popen(
            [python, "-m", "benchmarks.reader", json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": paths},
        )
        self._watch()

    def _watch(self) -> None:
        self._watchdog = threading.Timer(_LIMIT_S, self.child.kill)
        self._watchdog.start()

    def hear(self) -> str:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if line:
            return line
        self.child.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["ended without a word"]
        raise ReaderFailed(lines[-1][:300])

    def tell(self, job: Job | None = None) -> None:
        """Go on: with the clock running, or with another job."""
        assert self.child.stdin is not None
        if job is not None:
            self._watchdog.cancel()
            self._watch()
        self.child.stdin.write("\n" if job is None else json.dumps(asdict(job)) + "\n")
        self.child.stdin.flush()

    def close(self) -> None:
        self._watchdog.cancel()
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self._errors.close()


def measure(
    environment: Environment, jobs: Sequence[Job], server: Server | None
) -> dict[str, float]:
    """The figures of reading processes that run at the same time.

    Raises:
        ReaderFailed: one of them failed; all are ended.
    """
    (figures,) = measure_in_turn(environment, [jobs], server)
    return figures


def measure_in_turn(
    environment: Environment, series: Iterable[Sequence[Job]], server: Server | None
) -> Iterator[dict[str, float]]:
    """The figures of one set of jobs after the other, each as many, by the same reading processes.

    Raises:
        ReaderFailed: one of them failed; all are ended.
    """
    with ExitStack() as exits:
        readers: list[_Reader] = []
        for jobs in series:
            if readers:
                for reader, job in zip(readers, jobs, strict=True):
                    reader.tell(job)
            else:
                for job in jobs:
                    readers.append(_Reader(environment.python, job))
                    exits.callback(readers[-1].close)
            yield _figures(readers, server)


def _figures(readers: Sequence[_Reader], server: Server | None) -> dict[str, float]:
    for reader in readers:
        reader.hear()
    pids = [reader.child.pid for reader in readers]
    server_pids = server.pids() if server and server.pid else []
    forget_peak(server_pids)
    before = pss_mib([*pids, *server_pids])
    meter = CpuMeter(server_pids)
    for reader in readers:
        reader.tell()
    found = [json.loads(reader.hear()) for reader in readers]
    cpu = meter.seconds()
    memory = {"client RSS MiB": peak_rss_mib(pids), "client PSS MiB": pss_mib(pids)}
    growth = memory["client PSS MiB"] + pss_mib(server_pids) - before
    if server_pids:
        memory["server RSS MiB"] = peak_rss_mib(server_pids)
        memory["server PSS MiB"] = pss_mib(server_pids)
    return _together(found, cpu, bool(server_pids)) | memory | {"PSS growth MiB": growth}


def _together(found: list[dict[str, float]], cpu: float, served: bool) -> dict[str, float]:
    """The figures of several processes as those of one; of percentiles and times the worst."""
    merged = {name: max(one[name] for one in found) for name in found[0]}
    total = sum(one.pop("bytes", 0) for one in found)
    client_cpu = sum(one["client CPU s"] for one in found)
    for name in ("bytes", "client CPU s"):
        merged.pop(name, None)
    if total:
        merged["GB/s"] = total / merged["seconds"] / 1e9
        merged["client CPU-s/GiB"] = client_cpu / (total / GIB)
        if served:
            merged["server CPU-s/GiB"] = cpu / (total / GIB)
    return merged


@dataclass(frozen=True, slots=True)
class Case:
    """Conditions: their name, and the jobs of a system under them in a round.

    after: more figures of a system, taken after its measurement.
    """

    name: str
    jobs: Callable[[System, int], Sequence[Job]]
    after: Callable[[System, int], dict[str, float]] = lambda *_: {}


def usable(bench: Bench, outcome: Outcome, servers: Servers, systems: list[System]) -> list[System]:
    """Those that can run here; of the others the outcome says why not."""
    found = []
    for system in systems:
        reason = bench.environment.lacking([need for need in system.needs if need != "unix"])
        if reason is None and "unix" in system.needs:
            reason = unix_lane()
        if reason is None and system.server:
            reason = servers.missing.get(system.server)
        if reason is None:
            found.append(system)
        else:
            outcome.skipped[system.name] = reason
    return found


def run_case(
    bench: Bench, outcome: Outcome, servers: Servers, systems: list[System], case: Case
) -> None:
    """Measure the systems under these conditions, interleaved; adds to the outcome."""
    run_cases(bench, outcome, servers, systems, [case])


def run_apart(
    bench: Bench, outcome: Outcome, servers: Servers, systems: list[System], cases: Sequence[Case]
) -> None:
    """Measure the systems case after case, by other reading processes each; but by the same ones
    where it is only asked whether they run.
    """
    if bench.quick:
        run_cases(bench, outcome, servers, systems, cases)
        return
    for case in cases:
        run_case(bench, outcome, servers, systems, case)


def run_cases(
    bench: Bench, outcome: Outcome, servers: Servers, systems: list[System], cases: Sequence[Case]
) -> None:
    """Measure the systems under all these conditions, one after the other in the same reading
    processes, interleaved; adds to the outcome.
    """
    left = list(systems)
    for number in range(bench.rounds):
        for system in in_turn(left, number):
            server = servers.running.get(system.server)
            waiting = list(cases)
            series = (case.jobs(system, number) for case in cases)
            try:
                for figures in measure_in_turn(bench.environment, series, server):
                    case = waiting[0]
                    outcome.add(case.name, system.name, figures | case.after(system, number))
                    del waiting[0]
            except ReaderFailed as error:
                for case in waiting:
                    outcome.skipped[f"{system.name} ({case.name})"] = f"failed: {error}"
                    outcome.cases.get(case.name, {}).pop(system.name, None)
                left.remove(system)


def addresses(servers: Servers, system: System) -> dict[str, str]:
    server = servers.running.get(system.server)
    return dict(server.addresses) if server else {}


def as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "note": outcome.note,
        "skipped": outcome.skipped,
        "cases": {
            case: {
                system: {
                    name: Figure.of(values).as_json() | {"rounds": values}
                    for name, values in row.items()
                }
                for system, row in rows.items()
            }
            for case, rows in outcome.cases.items()
        },
    }


def scratch(work: Path) -> str:
    folder = work / "scratch"
    folder.mkdir(exist_ok=True)
    return str(folder)
