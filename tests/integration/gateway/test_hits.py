"""Which plain requests are hits: only of who may read, and of what is current and can be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import structlog

from cachesvc.core.types import ObjectName
from cachesvc.devorigin import DevOrigin
from cachesvc.gateway import connection
from cachesvc.gateway.assembly import GatewaySettings
from cachesvc.gateway.connection import Connection
from cachesvc.gateway.hits import Hit
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate, gateway_over
from tests.integration.gateway.raw import Raw, RawAnswer, watched, wire
from tests.integration.gateway.test_auth import KEY, SECRET, client, signed
from tests.support import until


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Hit]]:
    with watched(monkeypatch) as hits:
        yield hits


def ends(gate: Gate) -> list[Connection]:
    return [one for one in gate.gateway._web.connections if isinstance(one, Connection)]


def rested(gate: Gate, raw: Raw, request: bytes) -> RawAnswer:
    """The answer to a request that finds its connection at rest."""
    until(lambda: all(map(Connection._at_rest, ends(gate))), "all are at rest")
    raw.send(request)
    return raw.answer()


def signed_wire(gate: Gate, secret: str = SECRET) -> bytes:
    host = gate.url.removeprefix("http://")
    headers = signed(gate, "/bucket/key", secret=secret)
    return wire(**headers).replace(b"Host: x", f"Host: {host}".encode())


def test_who_signs_is_answered_at_once_and_nobody_else(
    origin: DevOrigin, tmp_path: Path, taken: list[Hit]
) -> None:
    (tmp_path / "node").mkdir()
    settings = GatewaySettings(keys={KEY: SECRET})
    with gateway_over(origin.url, tmp_path / "node", settings=settings) as gate, Raw(gate) as raw:
        good = signed_wire(gate)
        assert rested(gate, raw, good).body == DATA
        until(gate.quiet, "it is stored")
        taken.clear()
        assert rested(gate, raw, good).body == DATA
        assert len(taken) == 1
        given = {"Bucket": "bucket", "Key": "key"}
        url = client(gate).generate_presigned_url("get_object", given, 60)
        presigned = wire(url.removeprefix(gate.url)).replace(b": x", gate.url[5:].encode())
        presigned = presigned.replace(b"Host//", b"Host: ")
        assert rested(gate, raw, presigned).body == DATA
        assert len(taken) == 2
        bad = [signed_wire(gate, secret="another"), wire(), presigned.replace(b"/key?", b"/key?x&")]
        for request in bad:
            answer = rested(gate, raw, request)
            assert answer.status == 403
            assert DATA[:100] not in answer.body
        assert len(taken) == 2


@pytest.mark.parametrize("size_bytes", [20, 300_000])
def test_what_was_overwritten_is_never_told_again(
    gate: Gate, origin: DevOrigin, taken: list[Hit], size_bytes: int
) -> None:
    with Raw(gate) as raw:
        for number in range(4):
            data = bytes([number]) * size_bytes
            assert gate.ask("/bucket/new", "PUT", body=data)[0] == 200
            for _ in range(3):
                assert rested(gate, raw, wire("/bucket/new")).body == data
                until(gate.quiet, "it is stored")
    assert len(taken) >= 4
    assert gate.ask("/bucket/new", "DELETE")[0] == 204
    assert gate.ask("/bucket/new")[0] == 404


def test_who_always_asks_the_origin_takes_no_short_way(
    origin: DevOrigin, tmp_path: Path, taken: list[Hit]
) -> None:
    (tmp_path / "node").mkdir()
    with gateway_over(origin.url, tmp_path / "node", revalidate_s=0.0) as gate, Raw(gate) as raw:
        for number in range(3):
            data = b"%d" % number
            origin.put("bucket", "key", data)
            assert rested(gate, raw, wire()).body == data
    assert taken == []


def test_a_bucket_may_be_named_by_the_host(
    origin: DevOrigin, tmp_path: Path, taken: list[Hit]
) -> None:
    (tmp_path / "node").mkdir()
    origin.put("other", "key", b"of another bucket")
    settings = GatewaySettings(domain="s3.localhost")
    with gateway_over(origin.url, tmp_path / "node", settings=settings) as gate, Raw(gate) as raw:
        for _ in range(3):
            for host, body in ((b"bucket", DATA), (b"OTHER".lower(), b"of another bucket")):
                request = wire("/key").replace(b": x", b": " + host + b".s3.localhost:80")
                assert rested(gate, raw, request).body == body
                until(gate.quiet, "it is stored")
    assert len(taken) >= 2


@pytest.mark.parametrize(
    ("value", "short"),
    [
        ("gr\u00fc\u00dfe, \u65e5\u672c", True),
        ("a\tb  c:d", True),
        ("", True),
        ("latin-1: \udcfc", False),
    ],
)
def test_odd_fields_of_the_origin_are_told_as_on_the_common_way(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, taken: list[Hit], value: str, short: bool
) -> None:
    gate.ask()
    until(gate.quiet, "it is stored")
    hear(gate, {"Content-Type": "text/x-test", "x-amz-meta-odd": value})
    with Raw(gate) as raw, structlog.testing.capture_logs() as told:
        first = rested(gate, raw, wire(Range="bytes=0-9"))
        assert [one for one in told if one["event"] == "a hit could not be looked up"] == []
        assert bool(taken) == short
        monkeypatch.setattr(connection, "plain", lambda data: None)
        second = rested(gate, raw, wire(Range="bytes=0-9"))
        assert first.comparable() == second.comparable()


@pytest.mark.parametrize("value", ["bell \x07", "delete \x7f", "smuggled\r\nX-Other: yes"])
def test_a_field_that_would_be_something_else_is_never_sent(
    gate: Gate, taken: list[Hit], value: str
) -> None:
    gate.ask()
    until(gate.quiet, "it is stored")
    hear(gate, {"x-amz-meta-odd": value})
    with Raw(gate) as raw:
        until(lambda: bool(ends(gate)) and ends(gate)[-1]._at_rest(), "it is at rest")
        raw.send(wire(Range="bytes=0-9"))
        assert raw.socket.recv(2000) == b""
    assert taken == []


def hear(gate: Gate, headers: Mapping[str, str]) -> None:
    """The origin tells these fields of the object."""
    checked = gate.reader.versions.peek(ObjectName("bucket", "key"))
    assert checked is not None
    assert checked.version is not None
    version, at = checked.version, checked.checked_at

    async def heard() -> None:
        gate.fields.hear(version, headers, at + 1000)
        assert gate.fields.of(checked) == tuple((k.lower(), v) for k, v in headers.items())

    gate.runner.run(heard)


@pytest.mark.parametrize("target", ["/" + "b" * 300 + "/k", "/b/" + "k" * 1100])
def test_a_name_that_cannot_be_is_refused_and_no_defect(gate: Gate, target: str) -> None:
    """Every request is looked up at once first; what is wrong is told on the common way."""
    with structlog.testing.capture_logs() as told:
        status, _, _ = gate.ask(target)
    assert status == 400
    assert not [one for one in told if one["log_level"] == "error"]
