"""Faults of the development origin: each does what it says, where and as often as it says."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import pytest

from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.devorigin.answer import changed_etag
from cachesvc.devorigin.faults import KINDS, FaultPlan
from tests.integration.devorigin.asking import DATA, ETAG, ask, header, raw, raw_get


@pytest.mark.parametrize(("kind", "code"), [("503", "SlowDown"), ("500", "InternalError")])
def test_an_error_fault_is_an_error_answer(origin: DevOrigin, kind: str, code: str) -> None:
    origin.faults = [Fault(kind, count=1)]
    status, _, body = ask(origin)
    assert status == int(kind)
    assert f"<Code>{code}</Code>".encode() in body
    assert ask(origin)[0] == 200
    assert [request.faults for request in origin.requests] == [(kind,), ()]


@pytest.mark.parametrize("after_bytes", [0, 1000, 200_000])
def test_cut_closes_the_connection_in_mid_body(origin: DevOrigin, after_bytes: int) -> None:
    origin.faults = [Fault("cut", after_bytes=after_bytes)]
    head, body, reset = raw(origin, raw_get(close=False))
    assert header(head, "Content-Length") == str(len(DATA))
    assert body == DATA[:after_bytes]
    assert not reset
    assert origin.requests[-1].body_bytes == after_bytes


def test_reset_ends_the_connection_by_rst(origin: DevOrigin) -> None:
    origin.faults = [Fault("reset", after_bytes=10)]
    _, body, reset = raw(origin, raw_get(close=False))
    assert reset
    assert DATA.startswith(body)
    assert len(body) <= 10


def test_short_length_sends_less_than_its_content_range_says(origin: DevOrigin) -> None:
    origin.faults = [Fault("short_length", after_bytes=60)]
    head, body, _ = raw(origin, raw_get("100-199"))
    assert header(head, "Content-Range") == f"bytes 100-199/{len(DATA)}"
    assert header(head, "Content-Length") == "60"
    assert body == DATA[100:160]


def test_long_length_sends_more_than_was_asked(origin: DevOrigin) -> None:
    origin.faults = [Fault("long_length", after_bytes=5)]
    head, body, _ = raw(origin, raw_get("100-199"))
    assert header(head, "Content-Range") == f"bytes 100-199/{len(DATA)}"
    assert header(head, "Content-Length") == "105"
    assert body == DATA[100:200] + bytes(5)


@pytest.mark.parametrize(("span", "start"), [("100-199", 99), ("0-99", 1)])
def test_wrong_range_answers_another_offset(origin: DevOrigin, span: str, start: int) -> None:
    origin.faults = [Fault("wrong_range")]
    head, body, _ = raw(origin, raw_get(span))
    assert header(head, "Content-Range") == f"bytes {start}-{start + 99}/{len(DATA)}"
    assert body == DATA[start : start + 100]


def test_full_200_ignores_the_range(origin: DevOrigin) -> None:
    origin.faults = [Fault("full_200")]
    head, body, _ = raw(origin, raw_get("100-199"))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert header(head, "Content-Range") is None
    assert body == DATA


def test_etag_change_answers_other_bytes_under_another_etag(origin: DevOrigin) -> None:
    origin.faults = [Fault("etag_change", method="*")]
    asked = {"If-Match": ETAG, "Range": "bytes=0-199999"}
    status, headers, body = ask(origin, headers=asked)
    assert (status, headers["etag"]) == (206, changed_etag(ETAG))
    assert body == bytes(255 - byte for byte in DATA[:200_000])
    assert ask(origin, "HEAD")[1]["etag"] == changed_etag(ETAG)


def test_no_etag_and_weak_etag_change_only_the_header(origin: DevOrigin) -> None:
    origin.faults = [Fault("no_etag")]
    status, headers, body = ask(origin)
    assert (status, "etag" in headers, body) == (200, False, DATA)
    origin.faults = [Fault("weak_etag", method="HEAD")]
    assert ask(origin, "HEAD")[1]["etag"] == f"W/{ETAG}"
    assert ask(origin)[1]["etag"] == ETAG


def test_slow_first_byte_waits_before_the_status_line(origin: DevOrigin) -> None:
    origin.faults = [Fault("slow_first_byte", delay_ms=80)]
    begun = time.monotonic()
    assert ask(origin)[2] == DATA
    assert time.monotonic() - begun >= 0.08


def test_stall_waits_in_mid_body_and_goes_on(origin: DevOrigin) -> None:
    origin.faults = [Fault("stall", after_bytes=1000, delay_ms=80)]
    begun = time.monotonic()
    _, body, _ = raw(origin, raw_get())
    assert body == DATA
    assert time.monotonic() - begun >= 0.08


def test_a_caller_that_leaves_during_a_stall_holds_nothing_up(origin: DevOrigin) -> None:
    origin.faults = [Fault("stall", after_bytes=10, delay_ms=3_600_000, count=1)]
    parts = urlsplit(origin.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(raw_get())
        assert connection.recv(10)
    assert ask(origin)[2] == DATA


def test_faults_touch_only_what_they_name(origin: DevOrigin) -> None:
    origin.put("bucket", "other", DATA)
    origin.faults = [Fault("503", key_glob="k*", method="HEAD")]
    assert ask(origin, "HEAD")[0] == 503
    assert ask(origin)[0] == 200
    assert ask(origin, "HEAD", "/bucket/other")[0] == 200
    assert ask(origin, target="/bucket?list-type=2")[0] == 200


def test_several_faults_meet_in_one_answer(origin: DevOrigin) -> None:
    origin.faults = [Fault("no_etag"), Fault("cut", after_bytes=7)]
    head, body, _ = raw(origin, raw_get())
    assert header(head, "ETag") is None
    assert body == DATA[:7]
    assert origin.requests[-1].faults == ("no_etag", "cut")


def test_chance_follows_the_seed() -> None:
    fault = Fault("503", probability=0.3)

    def draws(seed: int) -> list[bool]:
        plan = FaultPlan([fault], seed)
        return [bool(plan.draw("GET", "key", ranged=False)) for _ in range(200)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert 20 < sum(draws(1)) < 100


def test_a_fault_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown"):
        Fault("flood")
    with pytest.raises(ValueError, match="probability"):
        Fault("503", probability=2)
    with pytest.raises(ValueError, match="negative"):
        Fault("cut", after_bytes=-1)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_fault_outlives_its_count(origin: DevOrigin, kind: str) -> None:
    origin.faults = [Fault(kind, count=1)]
    raw(origin, raw_get("100-199"))
    head, body, _ = raw(origin, raw_get("100-199"))
    assert (head[:12], body) == (b"HTTP/1.1 206", DATA[100:200])
    assert header(head, "ETag") == ETAG
