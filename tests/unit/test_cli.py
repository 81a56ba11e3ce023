"""The command line: what it prints, and where it looks."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from cachesvc.devorigin.ports import free_ports
from tests.support import run_cli


def test_the_version_is_that_of_the_package() -> None:
    told = run_cli("--version")
    assert (told.exit_code, told.stdout) == (0, f"cachesvc {version('cachesvc')}\n")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_without_a_cluster_the_endpoint_of_the_environment_is_read(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("b", "k", b"content")
        monkeypatch.setenv(variable, origin.url)
        file = tmp_path / "copy"
        words = ["get", "s3://b/k", "-o", str(file), "--endpoint", "127.0.0.1:1"]
        done = run_cli(*words)
        assert done.exit_code == 0, done.output
        assert file.read_bytes() == b"content"
        assert "from: direct 7" in done.stdout
        assert "no node could answer (" in done.stderr


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_an_object_on_standard_output_stands_there_alone(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "origin").mkdir()
    monkeypatch.chdir(tmp_path)
    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("b", "k", b"content")
        words = ["get", "s3://b/k", "--endpoint", "127.0.0.1:1", "--origin-endpoint", origin.url]
        done = subprocess.run(
            [sys.executable, "-m", "cachesvc", *words, "-o", output],
            capture_output=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, b"content"), done.stderr
    assert not (tmp_path / "-").exists()


def test_json_and_the_object_itself_do_not_share_standard_output() -> None:
    refused = run_cli("get", "s3://b/k", "--endpoint", "127.0.0.1:1", "--json")
    assert refused.exit_code == 2
    assert "--json needs -o FILE" in refused.stderr


def test_without_an_endpoint_the_option_is_named() -> None:
    refused = run_cli("ring")
    assert refused.exit_code == 2
    assert "--endpoint" in refused.stderr


def test_an_origin_that_is_no_url_is_refused_before_it_is_needed() -> None:
    words = ["stat", "s3://b/k", "--endpoint", "127.0.0.1:1", "--origin-endpoint", "127.0.0.1:9"]
    refused = run_cli(*words)
    assert refused.exit_code == 2
    assert "write http://" in refused.stderr


def test_the_development_origin_fails_as_all_commands_do(tmp_path: Path) -> None:
    failed = run_cli("devorigin", "--root", str(tmp_path / "none"), "--listen", "127.0.0.1:0")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("cachesvc: root ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = run_cli("devorigin", "--root", str(tmp_path), "--listen", address)
    assert failed.exit_code == 1
    assert failed.stderr.startswith(f"cachesvc: cannot listen on {address}: Address already in use")


@pytest.mark.parametrize("port", ["lane", "grpc", "admin"])
def test_a_port_that_is_taken_is_said_to_be(tmp_path: Path, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ports = dict(zip(("lane", "grpc", "admin"), free_ports(3), strict=True))
        addresses = {name: f"127.0.0.1:{free}" for name, free in ports.items()} | {port: address}
        options = [word for name, at in addresses.items() for word in (f"--{name}", at)]
        origin = ("--origin-endpoint", "http://127.0.0.1:1")
        failed = run_cli("node", "--data-dir", str(tmp_path), *options, *origin)
    assert failed.exit_code == 1
    why = failed.stderr.splitlines()[-1].lower()
    assert why.startswith(f"cachesvc: cannot listen on {address} for {port}: ")
    assert "address already in use; is another program there?" in why


def test_an_empty_object_has_no_blocks(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    lane, grpc, admin = (f"127.0.0.1:{port}" for port in free_ports(3))
    with (
        DevOrigin(tmp_path / "origin") as origin,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cachesvc",
                "node",
                "--data-dir",
                str(tmp_path / "node"),
                "--lane",
                lane,
                "--grpc",
                grpc,
                "--admin",
                admin,
                "--origin-endpoint",
                origin.url,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as node,
    ):
        try:
            assert node.stdout is not None
            assert node.stdout.readline() == b"ready\n"
            origin.put("b", "k", b"")
            told = run_cli("where", "s3://b/k", "--endpoint", lane)
            listed = run_cli("where", "s3://b/k", "--endpoint", lane, "--json")
        finally:
            node.terminate()
    assert (told.exit_code, told.stdout) == (0, "s3://b/k is empty: it has no blocks\n")
    assert json.loads(listed.stdout) == {"uri": "s3://b/k", "blocks": []}


def test_a_port_that_is_no_lane_is_named(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as origin:
        address = origin.url.removeprefix("http://")
        failed = run_cli("ring", "--endpoint", address)
    assert failed.exit_code == 1
    assert address in failed.stderr


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("nod", "Did you mean node?"),
        ("statu", "Did you mean stat or status?"),
        ("devorign", "Did you mean devorigin?"),
        ("drain", "No such command 'drain'."),
        ("get --endpont x", "(Possible options: --endpoint)"),
        ("node --cap 1GiB", "(Possible options: --capacity)"),
        ("node --dir x", "(Possible options: --data-dir)"),
        ("node --s3-port 1", "(Possible options: --s3)"),
        ("node --node_id x", "(Possible options: --node-id)"),
        ("node --zone z", "No such option: --zone"),
        ("node --version", "No such option: --version"),
        ("demo --inputs x", "(Possible options: --input)"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_was_meant_and_nothing_else(
    written: str, meant: str
) -> None:
    refused = run_cli(*written.split())
    said = " ".join(refused.stderr.replace("│", " ").split())
    assert refused.exit_code == 2
    assert f"{meant} ╰" in said


def test_an_empty_command_suggests_none() -> None:
    assert "Did you mean" not in run_cli("").stderr


def test_status_names_every_endpoint_of_a_ring_that_is_down() -> None:
    ports = free_ports(2)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    told = run_cli("status", "--endpoint", ",".join(addresses), "--json")
    assert told.exit_code == 1
    found = json.loads(told.stdout)
    assert not found["healthy"]
    assert [(one["lane"], one["state"]) for one in found["members"]] == [
        (address, "down") for address in addresses
    ]
    told = run_cli("status", "--endpoint", ",".join(addresses))
    assert told.exit_code == 1
    lines = told.stderr.splitlines()
    assert len(lines) == 2
    for address, line in zip(addresses, lines, strict=True):
        assert line.startswith(f"cachesvc: {address} is down: ")
        assert "cannot be reached" in line
