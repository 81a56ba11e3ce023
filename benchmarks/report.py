"""The report: tables on the screen, docs/benchmarks.md with its plot, build/bench.json.

Every figure is the median over the rounds; in brackets stand the lowest and the highest. The share
of a ceiling is taken round by round.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.catalog import CEILINGS
from benchmarks.harness import Figure
from benchmarks.marks import Mark
from benchmarks.measure import Outcome

_SHARES = dict(zip(("of copy", "of sendfile"), CEILINGS, strict=True))
_WITH_RANGE = {"GB/s", "p50 us", "seconds", "load s"}
_HIDDEN = {"reads", "client RSS MiB", "server RSS MiB", "PSS growth MiB"}
_MEMORY = {"client PSS MiB": "client RSS MiB", "server PSS MiB": "server RSS MiB"}

Row = Mapping[str, Sequence[float]]


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def shown(figure: Figure) -> str:
    if figure.lowest == figure.highest:
        return number(figure.median)
    return f"{number(figure.median)} [{number(figure.lowest)}-{number(figure.highest)}]"


def _share(row: Row, ceiling: Row) -> str:
    ours, theirs = row.get("GB/s"), ceiling.get("GB/s")
    if not ours or not theirs or len(ours) != len(theirs):
        return ""
    share = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return f"{100 * share:.0f} %"


def columns(rows: Mapping[str, Row]) -> list[str]:
    names = [name for row in rows.values() for name in row if name not in _HIDDEN]
    found = sorted(dict.fromkeys(names), key=lambda name: (name in _MEMORY, name != "GB/s"))
    if "GB/s" in found:
        found = [name for name in found if name != "seconds"]
    if any(rows.get(ceiling, {}).get("GB/s") for ceiling in CEILINGS):
        found += _SHARES
    renamed = {old: old.replace("PSS", "RSS / PSS") for old in _MEMORY}
    return [renamed.get(name, name) for name in found]


def cells(rows: Mapping[str, Row], system: str) -> list[str]:
    row = rows[system]
    found = []
    for column in columns(rows):
        name = column.replace("RSS / PSS", "PSS")
        values = row.get(name)
        if column in _SHARES:
            found.append(_share(row, rows.get(_SHARES[column], {})))
        elif not values:
            found.append("")
        elif name in _MEMORY:
            resident = row.get(_MEMORY[name], [0.0])
            found.append(f"{number(max(resident))} / {number(max(values))}")
        elif name in _WITH_RANGE:
            found.append(shown(Figure.of(values)))
        else:
            found.append(number(statistics.median(values)))
    return found


def print_outcome(console: Console, name: str, outcome: Outcome) -> None:
    for case, rows in outcome.cases.items():
        table = Table(title=f"{name}: {case}")
        table.add_column("system", no_wrap=True)
        for column in columns(rows):
            table.add_column(column, justify="right")
        for system in rows:
            table.add_row(system, *cells(rows, system))
        console.print(table)
    for system, reason in outcome.skipped.items():
        console.print(f"{name}: {system} skipped: {reason}", style="dim", highlight=False)


def verdict(mark: Mark) -> str:
    return "not measured" if mark.reached is None else "reached" if mark.reached else "MISSED"


def print_marks(console: Console, marks: Sequence[Mark]) -> None:
    """Those that were measured, and how many were not: a run of one benchmark measures a few."""
    measured = [mark for mark in marks if mark.reached is not None]
    table = Table(
        title="marks", caption=f"not measured in this run: {len(marks) - len(measured)} others"
    )
    for column in ("what", "found", "mark", "", "remark"):
        table.add_column(column)
    for mark in measured:
        found = shown(mark.found) if mark.found else ""
        table.add_row(mark.what, found, mark.wanted, verdict(mark), mark.remark)
    console.print(table)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def document(
    intro: str,
    facts: Mapping[str, str],
    outcomes: Mapping[str, Outcome],
    figures: Mapping[str, Mapping[str, str]],
    marks: Sequence[Mark],
) -> str:
    """docs/benchmarks.md. figures: of the benchmarks that print their own."""
    lines = [intro.strip(), "", "## The machine and the run", ""]
    lines += _markdown(("", ""), list(facts.items()))
    lines += ["## Marks", ""]
    lines += _markdown(
        ("what", "found", "mark", "", "remark"),
        [
            (one.what, shown(one.found) if one.found else "", one.wanted, verdict(one), one.remark)
            for one in marks
        ],
    )
    for name, outcome in outcomes.items():
        lines += [f"## {name}", "", outcome.note, ""]
        for case, rows in outcome.cases.items():
            lines += [f"### {name}: {case}", ""]
            lines += _markdown(
                ("system", *columns(rows)), [(system, *cells(rows, system)) for system in rows]
            )
        if outcome.skipped:
            lines += [f"- skipped: {name}: {why}" for name, why in outcome.skipped.items()] + [""]
    for name, table in figures.items():
        lines += [f"## {name}", "", *_markdown(("figure", "found"), list(table.items()))]
    return "\n".join(lines).rstrip() + "\n"
