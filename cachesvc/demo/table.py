"""What the demo showed, as a table of 80 columns that explains itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from cachesvc.demo.cluster import NODE_COUNT, SHAPE

WIDTH = 80
_COLUMNS = (
    "what is read", "cache", "time", "MB/s", "origin\nHEADs", "origin\nGETs", "MB from\norigin",
    "read /\nfetched",
)  # fmt: skip
_LEGEND = (
    "none: no cache. The same client with the same threads reads the origin itself,",
    "  a small object by one GET, a large one in parts of 8 MiB side by side.",
    "cold: nobody has read it before; the nodes fetch it from the origin, once: a",
    "  small object by one GET, a large one by a GET for each block of 8 MiB.",
    "  The first reader pays for it, here on processors that nodes, origin and",
    "  readers share; who comes at the same moment shares it, later ones read hot.",
    "hot: another process reads it again, from the disks of the nodes.",
    "read / fetched: bytes that readers got for each byte that left the origin;",
    "  -: none left it.",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table.

    what: large, small or crowd. cache: none, cold or hot. threads: of each process.
    read_per_fetched: bytes read over bytes from the origin; None: nothing came from there.
    hit_share: bytes from the nodes' disks over all bytes read.
    """

    name: str
    what: str
    cache: str
    processes: int
    threads: int
    objects: int
    read_bytes: int
    seconds: float
    mb_s: float
    origin_heads: int
    origin_gets: int
    origin_bytes: int
    read_per_fetched: float | None
    hit_share: float


def show(console: Console, steps: Sequence[Step], notes: Sequence[str], output: Path) -> None:
    """Print the table, what its words mean, and where the result was written."""
    if not console.is_terminal:
        console = Console(width=WIDTH, file=console.file)
    console.print(_table(steps))
    for line in [*_LEGEND, *_reads(steps), *notes]:
        console.print(f"  {line}", highlight=False)
    console.print("  Every byte that any process got was compared by SHA-256: equal.")
    console.print(f"  written to {output}", soft_wrap=True)


def _table(steps: Sequence[Step]) -> Table:
    table = Table(
        title=f"cachesvc demo: {NODE_COUNT} nodes, and an origin with\n"
        f"{SHAPE.first_byte_ms:.0f} ms to the first byte, "
        f"{SHAPE.per_connection_mb_s:.0f} MB/s a connection",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for column in _COLUMNS:
        left = column in _COLUMNS[:2]
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    shown = ""
    for step in steps:
        if shown and shown != step.what:
            table.add_section()
        ratio = step.read_per_fetched
        fetched = "-" if ratio is None else f"{ratio:.0f}x" if ratio > 9 else f"{ratio:.1f}x"
        table.add_row(
            "" if shown == step.what else _what(step),
            step.cache,
            f"{step.seconds:.2f} s" if step.seconds < 100 else f"{step.seconds:.0f} s",
            f"{step.mb_s:.0f}",
            str(step.origin_heads),
            str(step.origin_gets),
            _mb(step.origin_bytes),
            fetched,
        )
        shown = step.what
    return table


def _mb(count_bytes: int) -> str:
    return (
        f"{count_bytes / 1e6:.1f}" if count_bytes < 10_000_000_000 else f"{count_bytes / 1e6:.0f}"
    )


def _what(step: Step) -> str:
    if step.what == "crowd":
        return f"{step.processes} readers, 1 object"
    return f"{step.objects:,} {step.what} object{'' if step.objects == 1 else 's'}"


def _reads(steps: Sequence[Step]) -> list[str]:
    """How much is read in each group, and by how many."""
    first = {step.what: step for step in reversed(steps)}
    lines = []
    for step in sorted(first.values(), key=steps.index):
        if step.what == "crowd":
            each = _mb(step.read_bytes // step.processes)
            lines.append(f"{_what(step)}: as many processes at the same moment, {each} MB to each")
        else:
            lines.append(
                f"{_what(step)}: {_mb(step.read_bytes)} MB by {step.threads} threads of a process"
            )
    return lines
