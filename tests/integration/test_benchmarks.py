"""The benchmarks run: small and short, with what is installed, and their figures are whole.

Story: most of a quick run is processes that start, one after another, so two halves of the
workloads run side by side.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.catalog import REGION_AGAIN

ROOT = Path(__file__).parent.parent.parent
HALVES = {"big": ("hot-big", "stampede"), "small": ("cold-fill", "stalled", "hot-small")}
WORKLOADS = tuple(workload for half in HALVES.values() for workload in half)
OURS = "cachesvc CacheClient lane"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of quick runs of the workloads that need no extra packages, one below for each."""
    folder = tmp_path_factory.mktemp("build")
    with ThreadPoolExecutor() as pool:
        for done in pool.map(lambda half: _quick_run(folder / half, HALVES[half]), HALVES):
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def _quick_run(folder: Path, workloads: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "benchmarks", "--quick", "--no-install",
        "--output", str(folder / "bench.json"), *workloads,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"}
    return subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=230
    )


@pytest.fixture(scope="module")
def halves(build: Path) -> list[dict[str, Any]]:
    return [json.loads((build / half / "bench.json").read_text()) for half in HALVES]


@pytest.fixture(scope="module")
def results(halves: list[dict[str, Any]]) -> dict[str, Any]:
    """Every workload's, by its name."""
    return {name: one[name] for one in halves for name in WORKLOADS if name in one}


@pytest.mark.parametrize("workload", ["hot-big", "hot-small", "cold-fill", "stampede"])
def test_every_case_has_whole_figures_of_our_client(results: dict[str, Any], workload: str) -> None:
    for case, rows in results[workload]["cases"].items():
        row = rows[OURS] if OURS in rows else rows[REGION_AGAIN]  # what Regions are compared by
        for figure in ("GB/s", "client CPU-s/GiB", "server CPU-s/GiB", "p99.9 us"):
            value = row[figure]["median"]
            assert math.isfinite(value), (case, figure)
            assert value > 0, (case, figure)
        for figure in ("client RSS MiB", "client PSS MiB", "server RSS MiB", "server PSS MiB"):
            assert row[figure]["median"] > 1, (case, figure)


def test_no_system_fails_and_one_that_is_left_out_says_why(results: dict[str, Any]) -> None:
    for workload in WORKLOADS:
        for system, reason in results[workload]["skipped"].items():
            assert reason, system
            assert not reason.startswith("failed"), (workload, system, reason)


def test_a_stampede_costs_one_get_per_extent(results: dict[str, Any]) -> None:
    for rows in results["stampede"]["cases"].values():
        assert rows[OURS]["GETs per extent"]["median"] == 1
        assert rows[OURS]["origin bytes / object"]["median"] == 1


def test_every_mark_is_reached_or_missed_or_says_what_it_lacks(
    halves: list[dict[str, Any]],
) -> None:
    for half in halves:
        assert len(half["marks"]) >= 11
        for mark in half["marks"]:
            assert (mark["reached"] is None) == (mark["found"] is None)
            assert mark["reached"] is not None or mark["remark"]


def test_the_document_and_its_plot_are_written(build: Path) -> None:
    for half in HALVES:
        text = (build / half / "benchmarks.md").read_text()
        assert f"| {OURS} |" in text
        assert "## Marks" in text
        assert ET.parse(build / half / "benchmarks.svg").getroot().tag.endswith("svg")
