"""The benchmarks run: small and short, with what is installed, and their figures are whole."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks.catalog import REGION_AGAIN

ROOT = Path(__file__).parent.parent.parent
WORKLOADS = ("hot-big", "hot-small", "cold-fill", "stampede", "stalled")
OURS = "cachesvc CacheClient lane"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quick run of the workloads that need no extra packages."""
    folder = tmp_path_factory.mktemp("build")
    command = [
        sys.executable, "-m", "benchmarks", "--quick", "--no-install",
        "--output", str(folder / "bench.json"), *WORKLOADS,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"}
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=230
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def results(build: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((build / "bench.json").read_text())
    return found


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


def test_every_mark_is_reached_or_missed_or_says_what_it_lacks(results: dict[str, Any]) -> None:
    assert len(results["marks"]) >= 11
    for mark in results["marks"]:
        assert (mark["reached"] is None) == (mark["found"] is None)
        assert mark["reached"] is not None or mark["remark"]


def test_the_document_and_its_plot_are_written(build: Path) -> None:
    text = (build / "benchmarks.md").read_text()
    assert f"| {OURS} |" in text
    assert "## Marks" in text
    assert ET.parse(build / "benchmarks.svg").getroot().tag.endswith("svg")
