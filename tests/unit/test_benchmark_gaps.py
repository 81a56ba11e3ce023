"""What the benchmarks do where something is missing or breaks: they say so, and go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import benchmarks.__main__ as program
from benchmarks import landing, measure, peers
from benchmarks.catalog import System
from benchmarks.environment import DEBIAN, Environment
from benchmarks.harness import CpuMeter
from benchmarks.peers import Servers, version_of

NOTHING = Environment("python", {})


def test_landing_without_openssl_measures_http_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.landing.shutil.which", lambda _: None)
    monkeypatch.setattr(landing, "FILE_COUNT", 1)
    figures = landing.run(tmp_path, 1)
    assert figures["https"].startswith("skipped: openssl is not installed")
    assert figures["http, splice, GB/s"]["median"] > 0
    assert not any(name.startswith("https,") for name in figures)


def test_a_benchmark_that_breaks_does_not_take_the_others_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no luck")

    def found(*_: Any) -> dict[str, Any]:
        return {"a figure": 1.0}

    monkeypatch.setattr(program, "BENCHMARKS", {"fill": broken, "restart": found})
    monkeypatch.setitem(program.WORKLOADS, "stampede", broken)
    monkeypatch.setattr("benchmarks.environment.prepare", lambda *_, **__: NOTHING)
    monkeypatch.setattr(program, "_clients", lambda _: "")
    monkeypatch.setattr("benchmarks.__main__.signal.signal", lambda *_: None)
    output = tmp_path / "bench.json"
    with pytest.raises(SystemExit, match="failed: stampede, fill"):
        program.main(["stampede", "fill", "restart"], 1, output, quick=True, install=False)
    results = json.loads(output.read_text())
    assert results["restart"] == {"a figure": 1.0}
    assert results["fill"] == {"all": "failed: RuntimeError: no luck"}
    assert results["stampede"]["skipped"] == {"all": "failed: RuntimeError: no luck"}
    text = (tmp_path / "benchmarks.md").read_text()
    assert "- skipped: all: failed: RuntimeError: no luck" in text
    assert "| all | failed: RuntimeError: no luck |" in text


def test_a_peer_that_does_not_start_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> Any:
        raise RuntimeError("varnishd does not listen")

    monkeypatch.setattr(peers.Servers, "_varnish", refuses)
    with Servers(NOTHING, tmp_path, ("varnish", "origin")) as servers:
        assert list(servers.running) == ["origin"]
        assert servers.missing == {
            "varnish": "varnish could not be started: varnishd does not listen"
        }
        bench = measure.Bench(NOTHING, 1, quick=True)
        outcome = measure.Outcome("")
        system = System("varnish, raw client", "http_raw", "varnish")
        assert measure.usable(bench, outcome, servers, [system]) == []
        assert outcome.skipped == {system.name: servers.missing["varnish"]}


def test_every_program_that_is_installed_can_be_asked_for_its_version() -> None:
    for one in DEBIAN:
        assert isinstance(version_of(one), str)


def test_the_cpu_of_a_server_is_told_though_one_of_its_processes_ended_meanwhile() -> None:
    passing = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    meter = CpuMeter([os.getpid(), passing.pid])
    passing.communicate()
    begun = time.process_time()
    while time.process_time() - begun < 0.01:
        pass
    assert meter.seconds() >= 0.01


def test_a_reading_process_needs_nothing_of_a_node() -> None:
    """Its venv has the peers and what the thin client needs. (Once, a ceiling's client imported a
    lane thread's numbers, and with them its log: the ceiling was left out of the tables.)
    """
    without = "structlog", "aiohttp", "uvloop", "prometheus_client", "typer", "pydantic"
    used = "reader", "systems", "rawlane", "sendfile_server", "checking_server", "relay_server"
    text = f"import sys; sys.modules.update(dict.fromkeys({without!r}))\n" + "".join(
        f"import benchmarks.{module}\n" for module in used
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
