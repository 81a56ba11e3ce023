"""GET and HEAD of objects: the right bytes, from the cache, and the head that S3 would give."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.gateway import reading
from tests.integration.devorigin.asking import NASTY_KEYS
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate, gateway_over
from tests.support import pattern, until

SIZE = len(DATA)
MIB = 1 << 20


def gets(origin: DevOrigin) -> int:
    return sum(one.operation == "GetObject" for one in origin.requests)


def test_a_second_read_asks_the_origin_for_no_byte(gate: Gate, origin: DevOrigin) -> None:
    status, headers, body = gate.ask()
    assert (status, body == DATA, headers["x-cache"]) == (200, True, "MISS")
    until(gate.quiet, "it is stored")
    before = len(origin.requests)
    status, headers, body = gate.ask()
    assert (status, body == DATA, headers["x-cache"]) == (200, True, "HIT")
    assert headers["x-cache-node"] == "node-1"
    assert len(headers["x-amz-request-id"]) == 16
    assert len(origin.requests) == before


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("span", "start", "end"),
    [
        ("0-0", 0, 1),
        ("0-99", 0, 100),
        (f"{MIB - 10}-{MIB + 9}", MIB - 10, MIB + 10),
        (f"16384-{2 * MIB - 1}", 16384, 2 * MIB),
        (f"5-{2 * MIB + 70_000}", 5, 2 * MIB + 70_001),
        ("3000000-", 3_000_000, SIZE),
        ("-1", SIZE - 1, SIZE),
        ("-70000", SIZE - 70_000, SIZE),
        (f"-{SIZE + 5}", 0, SIZE),
        (f"7-{10**30}", 7, SIZE),
    ],
)
def test_a_range_is_answered_by_206_and_its_bytes(
    gate: Gate, span: str, start: int, end: int, warm: bool
) -> None:
    if warm:
        gate.ask()
        until(gate.quiet, "it is stored")
    status, headers, body = gate.ask(headers={"Range": f"bytes={span}"})
    assert status == 206
    assert headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert headers["content-length"] == str(end - start)
    assert body == DATA[start:end]
    assert headers["x-cache"] == ("HIT" if warm else "MISS")


def test_what_is_stored_in_part_is_a_partial_hit(gate: Gate) -> None:
    gate.ask(headers={"Range": "bytes=0-99"})
    until(gate.quiet, "it is stored")
    _, headers, body = gate.ask()
    assert headers["x-cache"] == "PARTIAL"
    assert body == DATA


@pytest.mark.parametrize("span", [f"{SIZE}-", f"{SIZE + 1}-{SIZE + 2}", "-0", f"{10**25}-"])
def test_a_range_outside_the_object_is_416(gate: Gate, span: str) -> None:
    status, headers, body = gate.ask(headers={"Range": f"bytes={span}"})
    assert status == 416
    assert headers["content-range"] == f"bytes */{SIZE}"
    assert b"<Code>InvalidRange</Code>" in body
    assert f"<ActualObjectSize>{SIZE}</ActualObjectSize>".encode() in body


@pytest.mark.parametrize("value", ["bytes=9-5", "bytes=-", "bytes=0-1,5-6", "items=0-1", "bytes=x"])
def test_what_is_no_single_range_is_ignored(gate: Gate, value: str) -> None:
    status, headers, body = gate.ask(headers={"Range": value})
    assert (status, body == DATA) == (200, True)
    assert "content-range" not in headers


def test_a_head_says_what_a_get_would(gate: Gate, origin: DevOrigin) -> None:
    status, headers, body = gate.ask(method="HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", str(SIZE))
    status, of_range, _ = gate.ask(method="HEAD", headers={"Range": "bytes=10-19"})
    assert (status, of_range["content-length"]) == (206, "10")
    assert of_range["content-range"] == f"bytes 10-19/{SIZE}"
    _, of_get, _ = gate.ask()
    for name in ("etag", "last-modified", "accept-ranges", "content-type", "content-length"):
        assert headers[name] == of_get[name]
    assert gets(origin) > 0


def test_an_empty_object_has_an_empty_body_and_no_range(gate: Gate, origin: DevOrigin) -> None:
    origin.put("bucket", "empty", b"")
    assert gate.ask("/bucket/empty")[::2] == (200, b"")
    assert gate.ask("/bucket/empty", headers={"Range": "bytes=0-"})[0] == 416


@pytest.mark.parametrize("key", NASTY_KEYS)
def test_a_key_is_taken_byte_for_byte(gate: Gate, origin: DevOrigin, key: str) -> None:
    data = key.encode() * 3
    origin.put("bucket", key, data)
    for target in ("/bucket/" + quote(key, safe="/"), "/bucket/" + quote(key, safe="")):
        status, headers, body = gate.ask(target)
        assert (status, body) == (200, data)
        until(gate.quiet, "it is stored")
    assert headers["x-cache"] == "HIT"


def test_a_missing_key_and_a_missing_bucket_are_told_apart(gate: Gate) -> None:
    status, _, body = gate.ask("/bucket/none")
    assert (status, b"<Code>NoSuchKey</Code><" in body, b"<Key>none</Key>" in body) == (
        404,
        True,
        True,
    )
    status, _, body = gate.ask("/nobucket/none")
    assert (status, b"<Code>NoSuchBucket</Code>" in body) == (404, True)
    assert gate.ask("/bucket/none", "HEAD")[::2] == (404, b"")


def test_an_object_without_a_strong_etag_is_passed_and_not_stored(
    gate: Gate, origin: DevOrigin
) -> None:
    origin.faults = [Fault("weak_etag", method="*")]
    for _ in range(2):
        status, headers, body = gate.ask(headers={"Range": "bytes=5-9"})
        assert (status, body, headers["x-cache"]) == (206, DATA[5:10], "BYPASS")
    assert gate.store.stored_count == 0


def test_an_overwritten_object_is_looked_up_again_before_the_head(
    gate: Gate, origin: DevOrigin
) -> None:
    assert gate.ask(method="HEAD")[0] == 200
    newer = pattern(500_000, seed=2)
    origin.put("bucket", "key", newer)
    status, headers, body = gate.ask()
    assert (status, body == newer, headers["content-length"]) == (200, True, "500000")


def test_damaged_pages_are_filled_again_and_never_sent(gate: Gate) -> None:
    gate.ask()
    whole = gate.blocks()[:3]
    for number, block in enumerate(whole):
        with gate.path_of(block).open("r+b") as file:
            file.seek(20_000 * (number + 1))
            file.write(b"damage")
    status, _, body = gate.ask()
    assert (status, body == DATA) == (200, True)
    assert gate.count("corrupt_blocks_total", check="page") == len(whole)


def test_a_block_file_cut_short_is_filled_again(gate: Gate) -> None:
    gate.ask()
    with gate.path_of(gate.blocks()[1]).open("r+b") as file:
        file.truncate(100_000)
    status, _, body = gate.ask()
    assert (status, body == DATA) == (200, True)
    assert gate.ask()[2] == DATA


def test_an_origin_that_fails_behind_the_head_ends_the_connection(
    gate: Gate, origin: DevOrigin
) -> None:
    gate.ask(headers={"Range": "bytes=0-99"})
    origin.faults = [Fault("500", method="GET")]
    with gate.connect() as connection:
        connection.sendall(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
        received = bytearray()
        try:
            while data := connection.recv(1 << 20):
                received += data
        except ConnectionResetError:
            pass
    body = bytes(received).partition(b"\r\n\r\n")[2]
    assert received.startswith(b"HTTP/1.1 200")
    assert len(body) < SIZE
    assert DATA.startswith(body)


def test_an_origin_that_fails_before_the_head_is_503(gate: Gate, origin: DevOrigin) -> None:
    gate.ask(method="HEAD")
    origin.faults = [Fault("500", method="GET")]
    status, _, body = gate.ask()
    assert (status, b"<Code>ServiceUnavailable</Code>" in body) == (503, True)


def test_slow_clients_hold_no_thread_and_no_one_waits_for_them(gate: Gate) -> None:
    gate.ask()
    slow = [gate.connect() for _ in range(12)]
    for connection in slow:
        connection.sendall(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: gate.count("requests_total", op="read", result="hit") >= 12, "all are served")
    assert gate.ask()[2] == DATA
    for connection in slow:
        received = bytearray()
        while len(received.partition(b"\r\n\r\n")[2]) < SIZE:
            received += connection.recv(1 << 20)
        assert received.partition(b"\r\n\r\n")[2] == DATA
        connection.close()


def test_a_client_that_leaves_in_mid_body_leaves_nothing_behind(gate: Gate) -> None:
    gate.ask()
    for _ in range(5):
        with gate.connect() as connection:
            connection.sendall(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(100)
    until(gate.quiet, "nothing is pinned any more")


def test_many_requests_share_one_connection(gate: Gate) -> None:
    with gate.connect() as connection:
        wire = b"GET /bucket/key HTTP/1.1\r\nHost: x\r\nRange: bytes=%d-%d\r\n\r\n"
        spans = [(number * 1000, number * 1000 + 200_000) for number in range(5)]
        connection.sendall(b"".join(wire % span for span in spans))
        received = bytearray()
        for start, last in spans:
            while len(received.partition(b"\r\n\r\n")[2]) < last - start + 1:
                received += connection.recv(1 << 20)
            body = received.partition(b"\r\n\r\n")[2]
            assert body[: last - start + 1] == DATA[start : last + 1]
            received = bytearray(body[last - start + 1 :])
        assert not received


def test_a_window_of_a_large_object_is_read_after_the_other(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WINDOW_BYTES", 1 << 20)
    for _ in range(2):
        assert gate.ask()[2] == DATA
        assert gate.ask(headers={"Range": "bytes=1000-2500000"})[2] == DATA[1000:2_500_001]


def test_a_herd_on_a_cold_object_costs_one_fill(gate: Gate, origin: DevOrigin) -> None:
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(gate.ask()[2])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [DATA] * 8
    spans = [one.range for one in origin.requests if one.operation == "GetObject"]
    assert len(spans) == len(set(spans))
    assert sum(end - start for start, end in spans if (start, end)) == SIZE  # type: ignore[misc]


def test_the_gateway_stops_with_requests_under_way(origin: DevOrigin, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with gateway_over(origin.url, tmp_path / "other") as gate:
        gate.ask()
        connection = gate.connect()
        connection.sendall(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(100)
        gate.runner.run(lambda: gate.gateway.stop(0.0))
        connection.close()
