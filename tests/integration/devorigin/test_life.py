"""Shape, log and life of the development origin."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from cachesvc.devorigin import DevOrigin, Fault, LoggedRequest, Shape, run
from tests.integration.devorigin.asking import DATA, ETAG, ask, raw, raw_get


def test_a_shaped_answer_takes_its_time_and_is_the_same(tmp_path: Path) -> None:
    with DevOrigin(tmp_path, shape=Shape(first_byte_ms=20, per_connection_mb_s=10)) as origin:
        origin.put("bucket", "key", DATA * 2)
        begun = time.monotonic()
        assert ask(origin)[2] == DATA * 2
        assert time.monotonic() - begun >= 0.02 + len(DATA) * 2 / 10e6
        origin.shape = Shape(first_byte_ms=1, first_byte_p99_ms=3)
        assert ask(origin)[2] == DATA * 2


def test_a_shape_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Shape(first_byte_ms=-1)
    with pytest.raises(ValueError, match="p99"):
        Shape(first_byte_ms=10, first_byte_p99_ms=5)


def test_the_log_tells_what_each_answer_was(origin: DevOrigin) -> None:
    ask(origin, headers={"Range": "bytes=0-199999", "If-Match": ETAG})
    ask(origin, "HEAD", "/bucket/" + quote("abs ent"))
    ask(origin, target="/bucket?list-type=2")
    first, second, third = origin.requests
    assert isinstance(first, LoggedRequest)
    assert (first.method, first.operation, first.bucket, first.key) == (
        "GET",
        "GetObject",
        "bucket",
        "key",
    )
    assert (first.range, first.status, first.body_bytes) == ((0, 200_000), 206, 200_000)
    assert first.if_match == ETAG
    assert first.ended_at is not None
    assert first.started_at <= first.ended_at
    assert (second.key, second.status, second.body_bytes) == ("abs ent", 404, 0)
    assert third.operation == "ListObjectsV2"
    origin.clear_log()
    assert origin.requests == []


def test_the_log_keeps_the_newest(tmp_path: Path) -> None:
    with DevOrigin(tmp_path, log_limit=3) as origin:
        for number in range(5):
            ask(origin, target=f"/bucket/{number}")
        assert [request.key for request in origin.requests] == ["2", "3", "4"]


def test_another_process_reads_the_log_and_sets_faults(origin: DevOrigin) -> None:
    ask(origin)
    (entry,) = json.loads(ask(origin, target="/_devorigin/requests")[2])
    assert (entry["key"], entry["body_bytes"]) == ("key", len(DATA))
    assert ask(origin, "DELETE", "/_devorigin/requests")[0] == 204
    assert origin.requests == []
    faults = json.dumps([{"kind": "503", "count": 1}]).encode()
    assert ask(origin, "PUT", "/_devorigin/faults", body=faults)[0] == 204
    assert origin.faults == (Fault("503", count=1),)
    assert ask(origin)[0] == 503
    for wrong in (b"{", b'[{"kind": "flood"}]', b'[{"sort": "cut"}]', b"3"):
        assert ask(origin, "PUT", "/_devorigin/faults", body=wrong)[0] == 400
    assert ask(origin, "GET", "/_devorigin/other")[0] == 404


@pytest.mark.parametrize("mb_s", [0, 50])
def test_a_client_that_leaves_in_mid_body_leaves_no_noise(
    origin: DevOrigin, caplog: pytest.LogCaptureFixture, mb_s: float
) -> None:
    origin.put("bucket", "large", bytes(64 << 20))
    origin.shape = Shape(per_connection_mb_s=mb_s)
    parts = urlsplit(origin.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(raw_get(key="large"))
        assert connection.recv(1000)
    raw(origin, b"no http\r\n\r\n")
    while origin.requests[-1].ended_at is None:
        ask(origin, "HEAD", "/_devorigin/requests")
    assert origin.requests[-1].body_bytes < 64 << 20
    assert caplog.records == []


def test_it_stops_with_answers_under_way_and_starts_again(origin: DevOrigin) -> None:
    origin.faults = [Fault("stall", after_bytes=10, delay_ms=3_600_000)]
    parts = urlsplit(origin.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(raw_get())
        assert connection.recv(10)
        origin.stop()
        origin.stop()
    origin.faults = []
    origin.start()
    assert ask(origin)[2] == DATA


def test_a_port_that_is_taken_is_said_so(
    origin: DevOrigin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = urlsplit(origin.url).port or 0
    with pytest.raises(OSError, match="address already in use"):
        DevOrigin(tmp_path, port=port).start()
    assert run(tmp_path, "127.0.0.1", port, Shape()) == 1
    assert run(tmp_path / "absent", "127.0.0.1", 0, Shape()) == 1
    taken, absent = capsys.readouterr().err.splitlines()
    assert f"127.0.0.1:{port}" in taken
    assert "absent is not a folder" in absent


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_ready_and_ends_with_0_on_a_signal(tmp_path: Path, number: int) -> None:
    program = (
        "import sys; from pathlib import Path; from cachesvc.devorigin import Shape, run;"
        "sys.exit(run(Path(sys.argv[1]), '127.0.0.1', 0, Shape()))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
