"""`python -m benchmarks [NAME ...] [--rounds N] [--quick]`: the benchmarks, one after another.

Writes build/bench.json and prints every figure: median, and in brackets lowest to highest. A whole
run also writes docs/benchmarks.md and its plot; any other writes them into build/.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import (
    cold_fill,
    cold_range,
    environment,
    extents,
    fill,
    grpc_read,
    grpc_sweep,
    hot_big,
    hot_small,
    landing,
    lane_nginx,
    parquet,
    placed,
    restart,
    safetensors_load,
    sending,
    sockets,
    stalled,
    stampede,
)
from benchmarks.catalog import CEILINGS
from benchmarks.environment import ROOT, Environment
from benchmarks.harness import Figure
from benchmarks.marks import Found, Mark, all_marks
from benchmarks.measure import Bench, Outcome, as_json
from benchmarks.peers import version_of
from benchmarks.plot import Panel, svg
from benchmarks.report import document, print_marks, print_outcome

SWEEPS: dict[str, Callable[[Path, int], dict[str, Any]]] = {  # what decisions rest on: by name only
    "grpc-sweep": grpc_sweep.run,
    "landing": landing.run,
    "cold-range": cold_range.run,
    "sending": sending.run,
    "sockets": sockets.run,
    "extents": extents.run,
}
BENCHMARKS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "lane": lane_nginx.run,
    "placed": placed.run,
    "grpc": grpc_read.run,
    "fill": fill.run,
    "restart": restart.run,
}
WORKLOADS: dict[str, Callable[[Bench, Path], Outcome]] = {
    "hot-big": hot_big.run,
    "cold-fill": cold_fill.run,
    "stampede": stampede.run,
    "safetensors": safetensors_load.run,
    "eight-processes": safetensors_load.run_eight,
    "parquet": parquet.run,
    "stalled": stalled.run,
    "hot-small": hot_small.run,  # the longest
}
ALL = [*BENCHMARKS, *WORKLOADS]
KNOWN = [*ALL, *SWEEPS]
_PANELS = (
    ("hot-big", hot_big.case_name(1), "GB/s"),
    ("hot-small", hot_small.case_name(4, 1), "p50 us"),
)


def main(
    names: Annotated[list[str] | None, typer.Argument(help=", ".join(KNOWN))] = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=100, help="How often each system is measured, in turns.")
    ] = 5,
    output: Annotated[
        Path, typer.Option(help="Figures go here; tables, and the peers' venv, beside it.")
    ] = Path("build/bench.json"),
    quick: Annotated[bool, typer.Option("--quick", help="Small and short: does it run?")] = False,
    install: Annotated[
        bool,
        typer.Option(
            help="Get peers that are missing: from PyPI and, as root on Debian, by apt-get."
        ),
    ] = True,
) -> None:
    """Run the benchmarks that are named, or all but the sweeps."""
    unknown = set(names or ()) - set(KNOWN)
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose of {', '.join(KNOWN)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # children end with us
    wanted = names or (list(WORKLOADS) if quick else ALL)
    rounds = 1 if quick else rounds
    output.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    facts = {"load before": f"{os.getloadavg()[0]:.2f}"}
    bench = Bench(environment.prepare(output.parent, install=install), rounds, quick)
    console = Console(width=None if Console().is_terminal else 240)
    outcomes: dict[str, Outcome] = {}
    figures: dict[str, dict[str, Any]] = {}
    broken = []
    marks: list[Mark] = []
    for name in wanted:
        print(f"{name} ...", flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="cachesvc-bench-") as work:
                if name in WORKLOADS:
                    outcomes[name] = WORKLOADS[name](bench, Path(work))
                else:
                    figures[name] = (BENCHMARKS | SWEEPS)[name](Path(work), rounds)
        except Exception as error:  # the others are worth their figures all the same
            traceback.print_exc()
            broken.append(name)
            why = f"failed: {type(error).__name__}: {error}"
            if name in WORKLOADS:
                outcomes[name] = Outcome("", skipped={"all": why})
            else:
                figures[name] = {"all": why}
        if name in WORKLOADS:
            print_outcome(console, name, outcomes[name])
        else:
            console.print(_table(name, figures[name]))
        now = _facts(bench, time.monotonic() - started) | facts
        whole = set(wanted) == set(ALL) and not quick
        marks = _write(output, ROOT / "docs" if whole else output.parent, now, outcomes, figures)
    print_marks(console, marks)
    if broken:
        sys.exit(f"failed: {', '.join(broken)}; see above")


def _write(
    output: Path,
    folder: Path,
    facts: dict[str, str],
    outcomes: Mapping[str, Outcome],
    figures: Mapping[str, dict[str, Any]],
) -> list[Mark]:
    """What is there by now, so that a run that is ended early leaves what it has; the marks."""
    marks = all_marks(Found(dict(outcomes), dict(figures)))
    results = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "at": facts["at"],
        "facts": facts,
        **figures,
        **{name: as_json(outcome) for name, outcome in outcomes.items()},
        "marks": [asdict(mark) for mark in marks],
    }
    output.write_text(json.dumps(results, indent=2) + "\n")
    tables = {name: _strings(table) for name, table in figures.items()}
    intro = (ROOT / "benchmarks" / "reading.md").read_text()
    (folder / "benchmarks.md").write_text(document(intro, facts, outcomes, tables, marks))
    (folder / "benchmarks.svg").write_text(_plot(outcomes))
    print(f"written to {output}, {os.path.relpath(folder)}/benchmarks.md and its plot")
    return marks


def _plot(outcomes: Mapping[str, Outcome]) -> str:
    panels = []
    for workload, case, figure in _PANELS:
        if workload in outcomes:
            rows = outcomes[workload].cases.get(case, {})
            bars = [(name, Figure.of(row[figure])) for name, row in rows.items() if figure in row]
            panels.append(Panel(f"{workload}: {case}, {figure}", bars))
    return svg(panels, CEILINGS)


def _table(name: str, figures: Mapping[str, Any]) -> Table:
    table = Table(title=name)
    table.add_column("figure")
    table.add_column("median [lowest to highest]")
    for figure, value in _strings(figures).items():
        table.add_row(figure, value)
    return table


def _strings(figures: Mapping[str, Any]) -> dict[str, str]:
    return {name: _shown(value) for name, value in figures.items()}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']:.3g} [{value['lowest']:.3g} to {value['highest']:.3g}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _facts(bench: Bench, seconds: float) -> dict[str, str]:
    """What the machine was, and what ran on it."""
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": f"{os.cpu_count()}, {models[0] if models else platform.machine()}",
        "memory": f"{memory_kib / (1 << 20):.1f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "rounds": f"{bench.rounds}{', quick' if bench.quick else ''}",
        "took": f"{seconds / 60:.1f} min",
        "servers": "; ".join(filter(None, map(version_of, environment.DEBIAN))),
        "clients": _clients(bench.environment),
    }


def _clients(found: Environment) -> str:
    ours = importlib.metadata.version("grpcio")
    done = subprocess.run(
        [found.python, "-m", "pip", "--disable-pip-version-check", "list", "--format=freeze"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    kept = [line for line in done.stdout.split() if line.split("==")[0] in environment.PEERS]
    return ", ".join([f"grpcio=={ours}", *kept])


if __name__ == "__main__":
    typer.run(main)
