"""Small reads of a version that the client knows: their answer is expected to the byte."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from cachesvc_client import CacheClient

from cachesvc.core.errors import CacheError, ObjectChanged, Overloaded
from cachesvc.core.request import ReadRequest
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import Kind, encode
from tests.integration.client_lane.fake_node import Behaviour, Pair, Session
from tests.integration.client_lane.sample import DATA, URI, VERSION, answer, segment


def small_answer(session: Session, request: ReadRequest) -> bytes:
    """As a real node answers it."""
    ((start, end),) = request.ranges
    assert end is not None
    head = ReadHead((segment(start, end),), VERSION, last=True, epoch=session.node.epoch)
    return answer(head, DATA[start:end])


def knowing_client(pair: Pair, **settings: Any) -> CacheClient:
    client = pair.client(**settings)
    client.stat(URI)
    return client


def test_a_damaged_small_answer_is_never_believed_wherever_the_damage_is(pair: Pair) -> None:
    length, position = 0, 0

    def damaged(session: Session, request: ReadRequest) -> None:
        nonlocal length
        raw = bytearray(small_answer(session, request))
        length = len(raw)
        raw[position] ^= 1
        session.send(bytes(raw))

    while not length or position < length:
        client = knowing_client(pair, silence_ms=250)
        pair.first.script = [damaged]
        assert client.read(URI, 7000, 7030) == DATA[7000:7030]
        client.close()
        pair.first.script = []
        position += 1
    assert length > 90


@pytest.mark.parametrize("piece_bytes", [1, 10, 16, 17, 60, 120, 4000])
def test_a_small_answer_may_come_in_pieces(pair: Pair, piece_bytes: int) -> None:
    def in_pieces(session: Session, request: ReadRequest) -> None:
        raw = small_answer(session, request)
        session.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(raw), piece_bytes):
            session.send(raw[start : start + piece_bytes])

    client = knowing_client(pair)
    pair.first.behave = in_pieces
    for start in (0, 7000, 100_001):
        assert client.read(URI, start, start + 3000) == DATA[start : start + 3000]
    assert pair.second.requests == []
    assert client.sources()["disk"] == 9000


def test_what_follows_a_small_answer_is_not_taken_for_the_next_one(pair: Pair) -> None:
    def talkative(session: Session, request: ReadRequest) -> None:
        session.send(small_answer(session, request) + b"junk")

    def shorter(session: Session, request: ReadRequest) -> None:
        head = codec.pack_error_head(Overloaded("full")).SerializeToString()
        session.send(encode(Kind.READ_ANSWER, head) + b"junk" * 20)

    for behaviour in (talkative, shorter):
        client = knowing_client(pair)
        pair.first.script = [behaviour]
        for start in (0, 7000, 100_001):
            assert client.read(URI, start, start + 3000) == DATA[start : start + 3000]


def refusal(error: CacheError) -> Behaviour:
    """A node that answers with an error."""

    def refuse(session: Session, _request: ReadRequest) -> None:
        head = codec.pack_error_head(error).SerializeToString()
        session.send(encode(Kind.READ_ANSWER, head))

    return refuse


def hangs_up(session: Session, _request: ReadRequest) -> None:
    session.sock.shutdown(socket.SHUT_RDWR)


def test_who_refuses_a_small_read_is_asked_once(pair: Pair) -> None:
    client = knowing_client(pair)
    pair.first.behave = refusal(Overloaded("full"))
    assert client.read(URI, 7000, 10_000) == DATA[7000:10_000]
    assert (len(pair.first.requests), len(pair.second.requests)) == (1, 1)
    assert client.sources() == {"disk": 3000}


def test_the_error_of_who_was_asked_is_nobody_elses(pair: Pair) -> None:
    """Another thread finds the first owner down while it refuses: the second one is asked."""
    client = knowing_client(pair)

    def refuses(session: Session, request: ReadRequest) -> None:
        assert client._engine is not None
        client._engine.router.failed(pair.first.member, "another thread's connection was cut")
        refusal(Overloaded("full"))(session, request)

    pair.first.behave = refuses
    assert client.read(URI, 7000, 10_000) == DATA[7000:10_000]
    assert (len(pair.first.requests), len(pair.second.requests)) == (1, 1)


def test_wrong_bytes_of_a_small_read_are_asked_for_again_checked(pair: Pair) -> None:
    def damaged(session: Session, request: ReadRequest) -> None:
        raw = bytearray(small_answer(session, request))
        raw[-1] ^= 1
        session.send(bytes(raw))

    client = knowing_client(pair)
    pair.first.script = [damaged]
    assert client.read(URI, 7000, 10_000) == DATA[7000:10_000]
    assert [request.verify for request in pair.first.requests] == [False, True]
    assert pair.second.requests == []


def test_a_node_that_hangs_up_on_a_small_read_is_left_alone(pair: Pair) -> None:
    client = knowing_client(pair)
    pair.first.behave = hangs_up
    for start in (7000, 11_000):
        assert client.read(URI, start, start + 3000) == DATA[start : start + 3000]
    asked = len(pair.first.requests)
    assert asked <= 2  # the second time on a fresh connection
    assert len(pair.second.requests) == 2


def test_a_small_read_of_a_version_that_is_gone_says_so_or_begins_anew(pair: Pair) -> None:
    client = knowing_client(pair)
    pinned = client.pin(URI)
    gone = refusal(ObjectChanged("another version"))
    pair.first.script = [gone]
    with pytest.raises(ObjectChanged):
        pinned.read(7000, 10_000)
    assert (len(pair.first.requests), len(pair.second.requests)) == (1, 0)
    client.stat(URI)
    pair.first.script = [gone]
    assert client.read(URI, 7000, 10_000) == DATA[7000:10_000]


def test_a_small_answer_that_tells_of_another_member_table_has_it_fetched(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachesvc_client.meeting.Meeting._too_soon", lambda _: False)

    def newer(session: Session, request: ReadRequest) -> None:
        session.node.epoch += 1
        session.send(small_answer(session, request))

    client = knowing_client(pair)
    hellos = pair.first.hellos + pair.second.hellos
    pair.first.script = [newer]
    assert client.read(URI, 7000, 10_000) == DATA[7000:10_000]
    assert pair.first.hellos + pair.second.hellos == hellos + 1


@pytest.mark.parametrize("start", [0, 65_530, len(DATA) - 100])
def test_small_reads_are_cut_as_all_others(pair: Pair, start: int) -> None:
    client, buffer = knowing_client(pair), bytearray(200)
    expected = DATA[start : start + 200]
    assert client.read(URI, start, start + 200) == expected
    assert client.readinto(URI, buffer, start) == len(expected)
    assert buffer[: len(expected)] == expected
    assert client.pin(URI).read(start, start + 200) == expected
