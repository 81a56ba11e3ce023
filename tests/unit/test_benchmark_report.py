"""What the benchmarks say of their figures: ratios, marks, tables, the plot."""

from __future__ import annotations

import inspect
import io

import pytest
from rich.console import Console

from benchmarks import hot_big
from benchmarks.catalog import (
    ARRAY,
    LANE_RAW,
    MEMORY_COPY,
    NGINX_RAW,
    REGION_AGAIN,
    REGION_FIRST,
)
from benchmarks.harness import Figure
from benchmarks.job import Job
from benchmarks.marks import Found, Mark, all_marks
from benchmarks.measure import Outcome
from benchmarks.plot import Panel, svg
from benchmarks.reader import percentiles, plan
from benchmarks.report import document, print_marks, shown

CASE = hot_big.case_name(1)
WHAT = "TCP lane / nginx sendfile, raw client, 8 MiB, GB/s"


def outcome(lane: list[float], nginx: list[float]) -> Outcome:
    made = Outcome("a note")
    for ours, theirs in zip(lane, nginx, strict=True):
        made.add(CASE, LANE_RAW, {"GB/s": ours})
        made.add(CASE, NGINX_RAW, {"GB/s": theirs})
        made.add(CASE, MEMORY_COPY, {"GB/s": 10.0})
    return made


def mark(found: Outcome | None) -> Mark:
    marks = all_marks(Found({"hot-big": found} if found else {}, {}))
    return next(one for one in marks if one.what == WHAT)


def test_a_ratio_is_taken_round_by_round() -> None:
    found = mark(outcome([1.0, 4.0, 2.0], [2.0, 2.0, 2.0]))
    assert found.found == Figure(1.0, 0.5, 2.0)
    assert found.reached is True


def test_a_mark_shows_the_other_ratios_beside_it() -> None:
    made = Outcome("a note")
    for case, first, again in (CASE, 1.0, 4.0), (hot_big.ADDED_UP, 2.0, 7.0):
        made.add(case, REGION_FIRST, {"GB/s": first})
        made.add(case, REGION_AGAIN, {"GB/s": again})
        made.add(case, ARRAY, {"GB/s": 5.0})
        made.add(case, NGINX_RAW, {"GB/s": 1.0})
    made.add(hot_big.UNREAD, REGION_AGAIN, {"GB/s": 60.0})
    made.add(hot_big.UNREAD, NGINX_RAW, {"GB/s": 1.5})
    marks = all_marks(Found({"hot-big": made}, {}))
    found = [one for one in marks if one.what.startswith("Region in place")]
    assert [one.found.median for one in found if one.found] == [0.8, 40.0, 7.0]
    assert [one.reached for one in found] == [True, True, False]
    assert [one.remark for one in found] == [
        "mapped first: 0.20 [0.20-0.20]",
        "",
        "mapped first: 2.00 [2.00-2.00]; array in place: 5.00 [5.00-5.00]",
    ]


def test_the_lanes_processor_time_is_shown_with_that_of_its_client() -> None:
    made = Outcome("a note")
    for name, server, client in (LANE_RAW, 0.4, 0.6), (NGINX_RAW, 0.2, 0.8):
        made.add(CASE, name, {"server CPU-s/GiB": server, "client CPU-s/GiB": client})
    marks = all_marks(Found({"hot-big": made}, {}))
    (found,) = [one for one in marks if one.what.endswith("server CPU-s/GiB")]
    assert found.reached is False
    assert found.remark == "server and client together: 1.00 [1.00-1.00]"


def test_figures_of_other_benchmarks_stand_beside_their_marks() -> None:
    figure = Figure(1.5, 1.0, 2.0).as_json()
    lane = {
        "8 MiB to a page, lane / nginx": figure,
        "8 MiB to a page, CacheClient / nginx": figure,
        "8 MiB, gateway / nginx": figure,
        "4 KiB, lane / nginx": figure,
    }
    found = {"hot-big": outcome([1.0], [1.0])}
    marks = all_marks(Found(found, {"lane": lane}))
    shown = next(one for one in marks if one.what == WHAT)
    assert shown.remark == "buffer at a page: 1.50 [1.00-2.00]"
    assert all_marks(Found(found, {"lane": {"skipped": "no nginx"}}))
    del lane["4 KiB, lane / nginx"]
    with pytest.raises(LookupError, match="4 KiB"):
        all_marks(Found(found, {"lane": lane}))


def test_a_mark_that_is_missed_says_so() -> None:
    assert mark(outcome([0.9], [1.0])).reached is False


def test_a_mark_without_figures_is_neither_reached_nor_missed() -> None:
    assert mark(None).reached is None
    assert mark(None).remark == "hot-big was not run"


def test_a_mark_names_why_its_system_was_left_out() -> None:
    made = Outcome("a note")
    made.skipped[NGINX_RAW] = "nginx is not installed"
    assert mark(made).remark == "nginx is not installed"


def test_a_document_shows_medians_ranges_and_shares_of_the_ceiling() -> None:
    made = outcome([1.0, 3.0, 2.0], [2.0, 2.0, 2.0])
    text = document("# Title", {"cores": "2"}, {"hot-big": made}, {}, [])
    assert f"| {LANE_RAW} | 2 [1-3] | 20 % |" in text


def test_a_figure_of_one_round_has_no_range() -> None:
    assert shown(Figure(2.0, 2.0, 2.0)) == "2"


def test_what_a_run_did_not_measure_is_counted_and_not_listed() -> None:
    marks = all_marks(Found({"hot-big": outcome([1.0], [2.0])}, {}))
    console = Console(width=200, record=True, file=io.StringIO())
    print_marks(console, marks)
    said = console.export_text()
    measured = [one for one in marks if one.found is not None]
    assert WHAT in said
    assert "MISSED" in said
    assert [one for one in marks if one.what in said] == measured
    assert f"not measured in this run: {len(marks) - len(measured)} others" in said


def test_a_plot_escapes_names_and_keeps_within_its_width() -> None:
    text = svg([Panel("a < b", [("x & y", Figure(1.0, 0.5, 2.0))])], ())
    assert "a &lt; b" in text
    assert "x &amp; y" in text


def test_percentiles_of_few_reads_end_at_the_slowest() -> None:
    found = percentiles([1e-6, 2e-6, 3e-6])
    assert found["p50 us"] == 2
    assert found["p99.9 us"] == 3


def test_a_plan_without_chance_reads_every_range_once() -> None:
    job = Job("ranges", "memory_copy", ["a", "b"], 4096, range_bytes=1024)
    assert list(plan(job)) == [(key, start) for key in "ab" for start in (0, 1024, 2048, 3072)]


def test_a_plan_is_drawn_before_the_clock_runs() -> None:
    """A generator would draw at its first range, in the middle of a measurement."""
    for zipf in (0.0, 0.9):
        made = plan(Job("ranges", "memory_copy", ["a"], 1 << 20, range_bytes=4096, zipf=zipf))
        assert not inspect.isgenerator(made)


def test_the_same_seed_draws_the_same_ranges_for_every_system() -> None:
    first, second = (
        plan(Job("ranges", system, ["a"], 1 << 20, range_bytes=4096, zipf=0.9, seed=3))
        for system in ("memory_copy", "boto3_get")
    )
    assert [next(first) for _ in range(100)] == [next(second) for _ in range(100)]
