"""The first GET of an object costs the origin one GET and no HEAD, and tells what a direct one
tells.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.gateway import cold, reading
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import GEOMETRY, Gate, ask, gateway_over
from tests.support import pattern, until

SMALL = pattern(100_000, seed=5)
SIZE = len(DATA)
MIB = 1 << 20


@pytest.fixture
def small(origin: DevOrigin) -> bytes:
    origin.put("bucket", "small", SMALL)
    return SMALL


def asked(origin: DevOrigin) -> list[str]:
    """What the origin was asked for since the last time, in S3's words."""
    operations = [one.operation for one in origin.requests]
    origin.clear_log()
    return operations


@contextmanager
def always_asking(origin: DevOrigin, directory: Path) -> Iterator[Gate]:
    (directory / "always").mkdir()
    with gateway_over(origin.url, directory / "always", revalidate_s=0) as gate:
        yield gate


@pytest.mark.parametrize(
    ("span", "start", "end"),
    [
        (None, 0, 100_000),
        ("0-", 0, 100_000),
        ("0-0", 0, 1),
        ("7-99", 7, 100),
        ("70000-", 70_000, 100_000),
        (f"99999-{10**30}", 99_999, 100_000),
        ("9-5", 0, 100_000),
        ("0-1,5-6", 0, 100_000),
    ],
)
def test_a_cold_object_costs_one_get_and_then_nothing(
    gate: Gate, origin: DevOrigin, small: bytes, span: str | None, start: int, end: int
) -> None:
    headers = {} if span is None else {"Range": f"bytes={span}"}
    direct = ask(origin.url, "/bucket/small", headers=headers)
    origin.clear_log()
    for cache in ("MISS", "HIT"):
        status, fields, body = gate.ask("/bucket/small", headers=headers)
        assert (status, body) == (direct[0], small[start:end])
        assert body == direct[2]
        assert fields["x-cache"] == cache
        for name in ("etag", "last-modified", "content-type", "content-length", "accept-ranges"):
            assert fields[name] == direct[1][name]
        assert fields.get("content-range") == direct[1].get("content-range")
        assert asked(origin) == (["GetObject"] if cache == "MISS" else [])
        until(gate.quiet, "it is stored")
    assert gate.ask("/bucket/small", "HEAD")[0] == 200
    assert asked(origin) == []


def test_a_large_cold_object_costs_one_get_for_each_extent(gate: Gate, origin: DevOrigin) -> None:
    status, headers, body = gate.ask()
    assert (status, headers["x-cache"], body == DATA) == (200, "MISS", True)
    assert sorted(one.range or (0, 0) for one in origin.requests) == [
        (start, min(start + MIB, SIZE)) for start in range(0, SIZE, MIB)
    ]
    assert asked(origin) == ["GetObject"] * 4


def test_a_cold_object_that_is_read_in_windows_costs_one_get_for_each_extent(
    gate: Gate, origin: DevOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WINDOW_BYTES", MIB)
    assert gate.ask()[2] == DATA
    assert asked(origin) == ["GetObject"] * 4


def test_sixteen_who_come_at_once_cost_one_get(gate: Gate, origin: DevOrigin, small: bytes) -> None:
    origin.faults = [Fault("slow_first_byte", delay_ms=300)]
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(gate.ask("/bucket/small")[2]))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [small] * 16
    assert asked(origin) == ["GetObject"]


@pytest.mark.parametrize("span", ["-5", f"{MIB}-{MIB + 5}"])
def test_where_a_get_of_block_0_would_not_do_the_version_is_asked_for_first(
    gate: Gate, origin: DevOrigin, span: str
) -> None:
    status, _, body = gate.ask(headers={"Range": f"bytes={span}"})
    assert (status, body) == (206, DATA[-5:] if span == "-5" else DATA[MIB : MIB + 6])
    assert asked(origin) == ["HeadObject", "GetObject"]


@pytest.mark.parametrize(
    ("headers", "status", "operations"),
    [
        ({"If-None-Match": "*"}, 304, ["HeadObject"]),
        ({"If-Match": '"other"'}, 412, ["HeadObject"]),
        ({"If-Range": '"other"', "Range": "bytes=0-4"}, 200, ["HeadObject", "GetObject"]),
        ({"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}, 200, ["HeadObject", "GetObject"]),
    ],
)
def test_conditions_are_held_to_a_head(
    gate: Gate,
    origin: DevOrigin,
    small: bytes,
    headers: dict[str, str],
    status: int,
    operations: list[str],
) -> None:
    found = gate.ask("/bucket/small", headers=headers)
    assert found[0] == status
    assert found[2] == (small if status == 200 else b"" if status == 304 else found[2])
    assert asked(origin) == operations


def test_errors_of_cold_objects_are_those_of_the_origin(gate: Gate, origin: DevOrigin) -> None:
    assert gate.ask("/bucket/none")[0] == 404
    assert asked(origin) == ["GetObject", "HeadBucket"]
    assert b"<Code>NoSuchBucket</Code>" in gate.ask("/nobucket/none")[2]
    assert asked(origin) == ["GetObject", "HeadBucket"]
    for span in (f"{SIZE}-", f"{SIZE + 1}-{SIZE + 9}"):
        status, headers, body = gate.ask(headers={"Range": f"bytes={span}"})
        assert (status, headers["content-range"]) == (416, f"bytes */{SIZE}")
        assert b"<Code>InvalidRange</Code>" in body
    origin.put("bucket", "empty", b"")
    assert gate.ask("/bucket/empty")[::2] == (200, b"")
    assert gate.count("requests_total", op="read", result="filled") == 0


def test_an_object_without_a_strong_etag_is_asked_for_once_and_then_passed(
    gate: Gate, origin: DevOrigin, small: bytes
) -> None:
    origin.faults = [Fault("weak_etag", method="*")]
    for operations in (["GetObject", "HeadObject", "GetObject"], ["GetObject"]):
        status, headers, body = gate.ask("/bucket/small")
        assert (status, headers["x-cache"], body) == (200, "BYPASS", small)
        assert asked(origin) == operations


def test_a_node_that_always_asks_is_told_by_its_first_get_too(
    origin: DevOrigin, small: bytes, tmp_path: Path
) -> None:
    with always_asking(origin, tmp_path) as gate:
        assert gate.ask("/bucket/small")[2] == small
        assert asked(origin) == ["GetObject"]
        until(gate.quiet, "it is stored")
        assert gate.ask("/bucket/small")[1]["x-cache"] == "HIT"
        assert asked(origin) == ["HeadObject"]
        newer = pattern(90_000, seed=6)
        origin.put("bucket", "small", newer)
        assert gate.ask("/bucket/small")[2] == newer


def test_after_a_write_the_first_get_brings_the_new_version(
    gate: Gate, origin: DevOrigin, small: bytes
) -> None:
    assert gate.ask("/bucket/small")[2] == small
    until(gate.quiet, "it is stored")
    newer = pattern(90_000, seed=6)
    assert gate.ask("/bucket/small", "PUT", body=newer)[0] == 200
    status, headers, body = gate.ask("/bucket/small")
    assert (status, headers["content-length"], body) == (200, "90000", newer)


def test_an_overwrite_behind_the_first_extent_ends_the_connection_and_mixes_nothing(
    gate: Gate, origin: DevOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer, some = pattern(SIZE, seed=7), cold.ColdReads._some

    async def overwritten(self: cold.ColdReads, version: ObjectVersion, end: int) -> bool:
        found = await some(self, version, end)
        origin.put("bucket", "key", newer)
        return found

    monkeypatch.setattr(cold.ColdReads, "_some", overwritten)
    received = bytearray()
    with gate.connect() as connection, suppress(ConnectionResetError):
        connection.sendall(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
        while piece := connection.recv(MIB):
            received += piece
    assert received.startswith(b"HTTP/1.1 200")
    body = bytes(received).partition(b"\r\n\r\n")[2]
    assert len(body) < SIZE
    assert DATA.startswith(body)
    assert gate.ask()[2] == newer


def test_what_is_stored_behind_block_0_makes_a_partial_hit(gate: Gate) -> None:
    assert gate.ask()[2] == DATA
    until(gate.quiet, "it is stored")
    name, (first, *_) = ObjectName("bucket", "key"), gate.blocks()
    pin = gate.store.hold(first)
    assert pin is not None
    gate.store.drop(pin, "page")
    pin.close()
    gate.runner.loop.call_soon_threadsafe(gate.reader.versions.forget_object, name)
    until(lambda: gate.reader.unknown(name), "it is forgotten")
    status, headers, body = gate.ask()
    assert (status, headers["x-cache"], body == DATA) == (200, "PARTIAL", True)


def test_any_stored_page_of_a_span_counts(gate: Gate) -> None:
    assert gate.ask(headers={"Range": f"bytes={MIB}-{MIB + 9}"})[0] == 206
    until(gate.quiet, "it is stored")
    version = gate.blocks()[0].version
    for span, found in (((0, MIB), False), ((0, MIB + 1), True), ((2 * MIB, SIZE), False)):
        assert cold.any_stored(gate.store, version, ByteRange(*span), GEOMETRY) is found
