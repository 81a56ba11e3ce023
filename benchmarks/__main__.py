"""`python -m benchmarks [NAME ...] [--rounds N]`: run the benchmarks, one after another.

Writes build/bench.json and prints every figure: median, and in brackets lowest to highest.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import fill, grpc_read, lane_nginx, restart

BENCHMARKS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "lane": lane_nginx.run,
    "grpc": grpc_read.run,
    "fill": fill.run,
    "restart": restart.run,
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help=", ".join(BENCHMARKS))] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100)] = 5,
    output: Annotated[Path, typer.Option()] = Path("build/bench.json"),
) -> None:
    """Run the benchmarks that are named, or all."""
    unknown = set(names or ()) - set(BENCHMARKS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose of {', '.join(BENCHMARKS)}")
    results: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    table = Table(title=f"cachesvc benchmarks, {rounds} rounds, interleaved")
    for column in ("benchmark", "figure", "median [lowest to highest]"):
        table.add_column(column)
    for name in names or BENCHMARKS:
        print(f"{name} ...", flush=True)
        with tempfile.TemporaryDirectory(prefix="cachesvc-bench-") as work:
            results[name] = BENCHMARKS[name](Path(work), rounds)
        for figure, value in results[name].items():
            table.add_row(name, figure, _shown(value))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")
    Console(width=None if Console().is_terminal else 120).print(table)
    print(f"written to {output}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']:.3g} [{value['lowest']:.3g} to {value['highest']:.3g}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(main)
