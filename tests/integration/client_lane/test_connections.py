"""Connections are used again, replaced where they are stale, given up where a node is silent."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from cachesvc_client import CacheClient

from cachesvc.core.errors import CacheError, ObjectNotFound
from cachesvc.core.request import ReadRequest
from cachesvc.core.ring import Member, MemberTable
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import Kind, encode
from tests.integration.client_lane.behaviours import close_at_once, silent
from tests.integration.client_lane.fake_node import Pair, Session, honest
from tests.integration.client_lane.sample import DATA, URI, answer


def test_a_connection_is_used_again_after_a_good_answer_and_a_clean_error(pair: Pair) -> None:
    def not_found(session: Session, request: ReadRequest) -> None:
        message = codec.pack_error_head(ObjectNotFound("no such thing"))
        session.send(encode(Kind.READ_ANSWER, message.SerializeToString()))

    pair.first.script = [honest, honest, not_found, honest]
    client = pair.client(version_cache_count=0)
    for _ in range(2):
        assert client.read(URI) == DATA
    with pytest.raises(ObjectNotFound, match="no such thing"):
        client.read(URI)
    assert client.read(URI) == DATA
    assert pair.first.hellos + pair.second.hellos <= 2


def test_a_stale_idle_connection_is_replaced_without_anybody_noticing(pair: Pair) -> None:
    client = pair.client()
    assert client.read(URI) == DATA
    pair.first.hang_up()
    assert client.read(URI) == DATA
    pair.first.script = [close_at_once]  # on an idle connection, before the first byte
    assert client.read(URI) == DATA
    assert pair.second.requests == []


def test_a_forget_on_a_stale_idle_connection_is_said_again_on_a_fresh_one(pair: Pair) -> None:
    client = pair.client(eject_ms=30_000)
    assert client.read(URI) == DATA
    client.invalidate(URI)
    asked, told = len(pair.first.requests), pair.first.forget_count
    pair.first.cut_forget_count = told + 1  # after the look at the connection, before a byte
    client.invalidate(URI)
    assert pair.first.forget_count == told + 2
    assert client.read(URI) == DATA
    assert len(pair.first.requests) == asked + 1, "the node was not thought to be down"


def test_pending_frames_keep_a_slow_answer_alive(pair: Pair) -> None:
    def slow(session: Session, request: ReadRequest) -> None:
        for _ in range(5):
            threading.Event().wait(0.1)  # the node's own slowness
            session.send(answer(ReadHead(pending=True), b""))
        honest(session, request)

    pair.first.behave = slow
    assert pair.client(silence_ms=300).read(URI) == DATA
    assert pair.second.requests == []


def test_a_silent_node_is_ejected_and_costs_its_silence_once(pair: Pair) -> None:
    pair.first.behave = silent
    client = pair.client(silence_ms=300, eject_ms=30_000)
    assert client.read(URI) == DATA
    assert client.read(URI) == DATA
    assert len(pair.first.requests) == 1


@pytest.mark.parametrize("backlog_is_full", [False, True])
def test_a_node_that_never_accepts_is_passed_over(pair: Pair, backlog_is_full: bool) -> None:
    with contextlib.ExitStack() as exits:
        hole = exits.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        address = f"127.0.0.1:{hole.getsockname()[1]}"
        for _ in range(3 if backlog_is_full else 0):
            filler = exits.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        table = MemberTable([Member(pair.first.node_id, address), pair.second.member])
        pair.second.join(table)
        client = CacheClient(f"{address},{pair.second.address}", hello_timeout_ms=150)
        exits.callback(client.close)
        for _ in range(5):
            assert client.read(URI) == DATA


@pytest.mark.slow  # botocore tries the origin several times
def test_with_no_node_and_no_origin_the_error_names_both(pair: Pair) -> None:
    pair.first.stop()
    pair.second.stop()
    with pytest.raises(CacheError, match=r"cannot be reached.*origin"):
        pair.client().read(URI)
