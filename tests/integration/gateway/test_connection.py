"""Connections that answer hits themselves, on both event loops: in order, whole, and to the end."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import uvloop

from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.disk.nvme import NvmeFile
from cachesvc.gateway import connection, server
from cachesvc.gateway.connection import Connection
from cachesvc.gateway.hits import Hit
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate, gateway_over
from tests.integration.gateway.raw import Raw, watched, wire
from tests.support import until

NEW_LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    asyncio.new_event_loop,
    uvloop.new_event_loop,
]
SMALL = b"small and stored"
REQUEST = wire("/bucket/small")


@pytest.fixture(params=NEW_LOOPS, ids=["asyncio", "uvloop"])
def gate(origin: DevOrigin, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gate]:
    """With two objects that are stored."""
    (tmp_path / "node").mkdir()
    origin.put("bucket", "small", SMALL)
    origin.put("bucket", "empty", b"")
    with gateway_over(origin.url, tmp_path / "node", new_loop=request.param) as started:
        for key in ("key", "small", "empty"):
            started.ask(f"/bucket/{key}")
        until(started.quiet, "all is stored")
        until(lambda: not started.gateway._web.connections, "nobody is connected")
        yield started


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Hit]]:
    with watched(monkeypatch) as hits:
        yield hits


def only(gate: Gate) -> Connection:
    """The gateway's end of the one connection that it has."""
    until(lambda: len(gate.gateway._web.connections) == 1, "there is one connection")
    (found,) = gate.gateway._web.connections
    assert isinstance(found, Connection)
    return found


def at_rest(gate: Gate) -> Connection:
    """The same, once it waits for a request."""
    found = only(gate)
    until(found._at_rest, "it waits for a request")
    return found


def stalled(gate: Gate) -> tuple[Raw, Connection]:
    """A client that has asked for the large object and reads nothing, and the gateway's end."""
    raw = Raw(gate, receive_bytes=4096)
    held = at_rest(gate)
    raw.send(wire())
    until(lambda: held._task is not None, "the client's socket is full")
    return raw, held


def _counted(gate: Gate, op: str, code: str, count: int) -> bool:
    return gate.count("s3_requests_total", op=op, code=code) == count


def _more_is_held(held: Connection, before_bytes: int) -> bool:
    return len(held._held) > before_bytes


def on_loop(gate: Gate, work: Callable[[], object]) -> None:
    async def called() -> None:
        work()

    gate.runner.run(called)


def test_hits_are_taken_by_the_connection(gate: Gate, taken: list[Hit]) -> None:
    with Raw(gate) as raw:
        for number, (method, key, body) in enumerate(
            [
                ("GET", "key", DATA),
                ("GET", "small", SMALL),
                ("HEAD", "key", b""),
                ("GET", "empty", b""),
                ("HEAD", "empty", b""),
                ("GET", "key", DATA),
            ],
            1,
        ):
            at_rest(gate)
            raw.send(wire(f"/bucket/{key}", method))
            answer = raw.answer(method)
            assert (answer.status, answer.body == body) == (200, True)
            assert len(taken) == number
        at_rest(gate)
        raw.send(wire(Range="bytes=5-1500000"))
        assert raw.answer().body == DATA[5:1_500_001]
        at_rest(gate)
        raw.send(wire("/bucket/small", Range="bytes=-5"))
        assert raw.answer().body == SMALL[-5:]
    assert len(taken) == 8
    for op, code in (("HeadObject", "200"), ("GetObject", "206")):
        until(partial(_counted, gate, op, code, 2), "they are counted")


@pytest.mark.parametrize("cut", [1, 4, 20, len(REQUEST) - 4, len(REQUEST) - 2, len(REQUEST) - 1])
def test_a_head_in_two_packets_is_one_request(gate: Gate, taken: list[Hit], cut: int) -> None:
    with Raw(gate) as raw:
        at_rest(gate)
        raw.send(REQUEST[:cut])
        until(lambda: not only(gate)._sure, "the first part is there")
        raw.send(REQUEST[cut:])
        assert raw.answer().body == SMALL
        assert taken == []
        raw.send(REQUEST)
        assert raw.answer().body == SMALL
        at_rest(gate)
        raw.send(REQUEST)
        assert raw.answer().body == SMALL
    assert taken


def test_the_rest_of_a_head_that_looks_like_a_request_is_none(gate: Gate, taken: list[Hit]) -> None:
    with Raw(gate) as raw:
        at_rest(gate)
        raw.send(b"HEAD /bucket/key HTTP/1.1\r\nX-Odd: ")
        until(lambda: not only(gate)._sure, "the first part is there")
        raw.send(REQUEST)
        assert raw.answer("HEAD").head.endswith(b"\r\n\r\n")
        at_rest(gate)
        assert taken == []
        raw.send(REQUEST)
        assert raw.answer().body == SMALL


@pytest.mark.parametrize("way", ["length", "continue", "chunked", "aws-chunked"])
def test_a_body_that_looks_like_a_request_is_a_body(
    gate: Gate, origin: DevOrigin, taken: list[Hit], way: str
) -> None:
    size = str(len(REQUEST))
    fields = {"Content-Length": size}
    packets = [REQUEST]
    if way == "continue":
        fields["Expect"] = "100-continue"
    elif way == "chunked":
        fields = {"Transfer-Encoding": "chunked", "x-amz-decoded-content-length": size}
        packets = [f"{len(REQUEST):x}\r\n".encode(), REQUEST, b"\r\n0\r\n\r\n"]
    elif way == "aws-chunked":
        packets = [f"{len(REQUEST):x}\r\n".encode(), REQUEST, b"\r\n0\r\n\r\n"]
        fields = {
            "Content-Length": str(sum(map(len, packets))),
            "Content-Encoding": "aws-chunked",
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "x-amz-decoded-content-length": size,
        }
    with Raw(gate) as raw:
        raw.send(wire("/bucket/new", "PUT", **fields))
        if way == "continue":
            assert raw.answer().status == 100
        else:
            until(lambda: only(gate)._request_in_progress, "the head is there")
        for packet in packets:
            raw.send(packet)
        assert raw.answer().status == 200
        assert taken == []
        for _ in range(3):
            raw.send(wire("/bucket/new"))
            assert raw.answer().body == REQUEST


def test_pipelined_requests_are_answered_in_order(gate: Gate) -> None:
    targets = ["small", "key", "small", "none", "empty", "key", "small"] * 10
    expected = {"small": SMALL, "key": DATA, "empty": b""}
    with Raw(gate) as raw:
        raw.send(b"".join(wire(f"/bucket/{key}") for key in targets))
        for key in targets:
            answer = raw.answer()
            assert answer.body == expected.get(key, answer.body)
            assert answer.status == (200 if key in expected else 404)


def test_what_comes_while_a_hit_is_sent_is_answered_behind_it(gate: Gate, taken: list[Hit]) -> None:
    raw, held = stalled(gate)
    with raw:
        for request in (REQUEST, wire("/bucket/none"), wire(method="HEAD"), REQUEST[:9]):
            before_bytes = len(held._held)
            raw.send(request)
            until(partial(_more_is_held, held, before_bytes), "it is held back")
        assert len(taken) == 1
        assert raw.answer().body == DATA
        assert raw.answer().body == SMALL
        assert raw.answer().status == 404
        assert raw.answer("HEAD").status == 200
        raw.send(REQUEST[9:])
        assert raw.answer().body == SMALL


def test_who_sends_on_and_on_while_a_hit_is_sent_is_not_read_from(gate: Gate) -> None:
    raw, held = stalled(gate)
    count = 2 * connection.MAX_HELD_BYTES // len(REQUEST)
    with raw:
        raw.send(REQUEST * count)
        until(lambda: held.transport is not None and not held.transport.is_reading(), "it is")
        assert len(held._held) < connection.MAX_HELD_BYTES + (256 << 10)
        assert raw.answer().body == DATA
        for _ in range(count):
            assert raw.answer().body == SMALL


def test_a_client_that_hangs_up_leaves_nothing_behind(gate: Gate) -> None:
    raw, _ = stalled(gate)
    before = gate.count("s3_requests_total", op="GetObject", code="sent")
    with raw:
        pass
    until(lambda: not gate.gateway._web.busy, "it is over")
    assert gate.count("s3_requests_total", op="GetObject", code="sent") == before + 1


def test_a_client_that_will_ask_no_more_gets_its_answer_whole(gate: Gate) -> None:
    raw, held = stalled(gate)
    with raw:
        raw.socket.shutdown(1)
        until(lambda: held.transport is None, "the gateway knows")
        assert raw.answer().body == DATA
        assert raw.rest() == b""
    assert gate.ask()[2] == DATA


def test_a_hit_that_takes_long_is_no_idle_connection(gate: Gate) -> None:
    raw, held = stalled(gate)
    with raw:
        held._next_keepalive_close_time = 0.0
        on_loop(gate, held._process_keepalive)
        assert held.transport is not None
        assert raw.answer().body == DATA
        raw.send(REQUEST)
        assert raw.answer().body == SMALL
        held._next_keepalive_close_time = 0.0
        on_loop(gate, held._process_keepalive)
        assert raw.rest() == b""


def test_a_hit_without_a_descriptor_takes_the_common_way(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    dup = os.dup
    refused: list[int] = []

    def full(fd: int) -> int:
        if not refused:
            refused.append(fd)
            raise OSError(errno.EMFILE, "Too many open files")
        return dup(fd)

    monkeypatch.setattr(os, "dup", full)
    with Raw(gate) as raw:
        at_rest(gate)
        raw.send(wire())
        assert raw.answer().body == DATA
    assert refused
    assert not gate.gateway._web.busy


def test_the_end_of_a_node_cuts_off_who_takes_nothing(gate: Gate) -> None:
    raw, _ = stalled(gate)
    with raw:
        gate.runner.run(lambda: gate.gateway.stop(0.01))
        assert not gate.gateway._web.busy
        head, _, body = raw.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert len(body) < len(DATA)
        assert DATA.startswith(body)


def test_the_end_of_a_node_waits_for_no_origin(gate: Gate, origin: DevOrigin) -> None:
    origin.faults = [Fault("stall", after_bytes=0, delay_ms=600_000)]
    with gate.path_of(gate.blocks()[0]).open("r+b") as file:
        file.write(b"damage")
    with Raw(gate) as raw:
        at_rest(gate)
        raw.send(wire())
        until(lambda: gate.coalescer.flight_count > 0, "the page is filled again")
        gate.runner.run(lambda: gate.gateway.stop(0.01))
        assert not gate.gateway._web.busy
        assert len(raw.rest()) < len(DATA)
    origin.faults = []


def test_hits_count_as_requests_under_way(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, _ = stalled(gate)
    with raw:
        monkeypatch.setattr(server, "MAX_REQUEST_COUNT", 1)
        for target in ("/bucket/key", "/bucket/small", "/bucket/none"):
            assert gate.ask(target)[0] == 503
        assert raw.answer().body == DATA
    until(lambda: gate.ask()[0] == 200, "there is room again")


def test_what_leaves_the_store_while_it_is_sent_is_sent_whole(gate: Gate) -> None:
    raw, _ = stalled(gate)
    with raw:
        for block in gate.blocks():
            pin = gate.store.hold(block)
            assert pin is not None
            gate.store.drop(pin, "page")
            pin.close()
        assert gate.store.stored_count < 4
        assert raw.answer().body == DATA
    assert gate.ask()[2] == DATA


def test_a_disk_that_fails_while_a_hit_is_sent_is_made_up_for(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = NvmeFile.readinto
    failed: list[int] = []

    def failing(file: NvmeFile, view: memoryview, offset: int) -> int:
        if len(failed) < 2:
            failed.append(offset)
            raise OSError(errno.EIO, "Input/output error")
        return read(file, view, offset)

    monkeypatch.setattr(NvmeFile, "readinto", failing)
    with Raw(gate) as raw:
        at_rest(gate)
        raw.send(wire())
        assert raw.answer().body == DATA
    assert failed
