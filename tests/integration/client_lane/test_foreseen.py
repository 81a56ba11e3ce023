"""Reads within a block, of a version that the client knows: the answer is expected to the byte."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest
from cachesvc_client import CacheClient

from cachesvc.core.errors import CacheError, ObjectChanged, Overloaded
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectVersion
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import Kind, encode
from tests.integration.client_lane.fake_node import Behaviour, Pair, Session
from tests.integration.client_lane.sample import DATA, NAME, PAGE, URI, VERSION, answer, segment


def whole_answer(session: Session, request: ReadRequest) -> bytes:
    """As a real node answers it."""
    ((start, end),) = request.ranges
    assert end is not None
    head = ReadHead((segment(start, end),), VERSION, last=True, epoch=session.node.epoch)
    return answer(head, DATA[start:end])


def knowing_client(pair: Pair, **settings: Any) -> CacheClient:
    client = pair.client(**settings)
    client.stat(URI)
    return client


SIZES = [3000, 150_000]  # received whole, and body behind head


@pytest.mark.parametrize("size", [30, 150_000])
def test_a_damaged_answer_is_never_believed_wherever_the_damage_is(pair: Pair, size: int) -> None:
    length, position = 0, 0

    def damaged(session: Session, request: ReadRequest) -> None:
        nonlocal length
        raw = bytearray(whole_answer(session, request))
        length = len(raw)
        raw[position] ^= 1
        session.send(bytes(raw))

    while not length or position < length:
        client = knowing_client(pair, silence_ms=250)
        pair.first.script = [damaged]
        assert client.read(URI, 7000, 7000 + size) == DATA[7000 : 7000 + size]
        client.close()
        pair.first.script = []
        position += 1 if position < length - size else size // 30
    assert length > size + 60


@pytest.mark.parametrize(
    ("size", "piece_bytes"),
    [
        *((3000, count) for count in (1, 10, 16, 17, 60, 120, 4000)),
        *((150_000, count) for count in (10, 17, 60, 4000, 70_000)),
    ],
)
def test_an_answer_may_come_in_pieces(pair: Pair, size: int, piece_bytes: int) -> None:
    def in_pieces(session: Session, request: ReadRequest) -> None:
        raw = whole_answer(session, request)
        session.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(raw), piece_bytes):
            session.send(raw[start : start + piece_bytes])

    client = knowing_client(pair)
    pair.first.behave = in_pieces
    for start in (0, 7000, 100_001):
        assert client.read(URI, start, start + size) == DATA[start : start + size]
    assert pair.second.requests == []
    assert client.sources()["disk"] == 3 * size


@pytest.mark.parametrize("size", SIZES)
def test_what_follows_an_answer_is_not_taken_for_the_next_one(pair: Pair, size: int) -> None:
    def talkative(session: Session, request: ReadRequest) -> None:
        session.send(whole_answer(session, request) + b"junk")

    def shorter(session: Session, request: ReadRequest) -> None:
        head = codec.pack_error_head(Overloaded("full")).SerializeToString()
        session.send(encode(Kind.READ_ANSWER, head) + b"junk" * 20)

    for behaviour in (talkative, shorter):
        client = knowing_client(pair)
        pair.first.script = [behaviour]
        for start in (0, 7000, 100_001):
            assert client.read(URI, start, start + size) == DATA[start : start + size]


def refusal(error: CacheError) -> Behaviour:
    """A node that answers with an error."""

    def refuse(session: Session, _request: ReadRequest) -> None:
        head = codec.pack_error_head(error).SerializeToString()
        session.send(encode(Kind.READ_ANSWER, head))

    return refuse


def hangs_up(session: Session, _request: ReadRequest) -> None:
    session.sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("size", SIZES)
def test_who_refuses_a_read_is_asked_once(pair: Pair, size: int) -> None:
    client = knowing_client(pair)
    pair.first.behave = refusal(Overloaded("full"))
    assert client.read(URI, 7000, 7000 + size) == DATA[7000 : 7000 + size]
    assert (len(pair.first.requests), len(pair.second.requests)) == (1, 1)
    assert client.sources() == {"disk": size}


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


@pytest.mark.parametrize("size", SIZES)
def test_wrong_bytes_of_a_read_are_asked_for_again_checked(pair: Pair, size: int) -> None:
    def damaged(session: Session, request: ReadRequest) -> None:
        raw = bytearray(whole_answer(session, request))
        raw[-1] ^= 1
        session.send(bytes(raw))

    client = knowing_client(pair)
    pair.first.script = [damaged]
    assert client.read(URI, 7000, 7000 + size) == DATA[7000 : 7000 + size]
    assert [request.verify for request in pair.first.requests] == [False, True]
    assert pair.second.requests == []


@pytest.mark.parametrize("size", SIZES)
def test_a_node_that_hangs_up_on_a_read_is_left_alone(pair: Pair, size: int) -> None:
    client = knowing_client(pair)
    pair.first.behave = hangs_up
    for start in (7000, 11_000):
        assert client.read(URI, start, start + size) == DATA[start : start + size]
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
        session.send(whole_answer(session, request))

    client = knowing_client(pair)
    hellos = pair.first.hellos + pair.second.hellos
    pair.first.script = [newer]
    assert client.read(URI, 7000, 10_000) == DATA[7000:10_000]
    assert pair.first.hellos + pair.second.hellos == hellos + 1


def test_a_node_that_hangs_up_in_the_body_has_cut_its_answer_short(pair: Pair) -> None:
    def cut(session: Session, request: ReadRequest) -> None:
        session.send(whole_answer(session, request)[:100_000])
        session.sock.shutdown(socket.SHUT_RDWR)

    client = knowing_client(pair)
    pair.first.script = [cut]
    assert client.read(URI, 7000, 157_000) == DATA[7000:157_000]
    assert [request.verify for request in pair.first.requests] == [False, True]
    assert client.sources() == {"disk": 150_000}


OTHERS = [
    ReadHead((segment(8000, 11_000),), VERSION, last=True),  # another place
    ReadHead((segment(8000, 158_000),), VERSION, last=True),
    *(
        ReadHead((segment(start, start + size),), version, last=True)
        for version in (
            ObjectVersion(NAME, '"efag"', len(DATA)),
            ObjectVersion(NAME, '"etag"', len(DATA) + 1),
        )
        for start, size in ((8000, 3000), (8000, 150_000))
    ),
]


@pytest.mark.parametrize("head", OTHERS)
def test_an_answer_right_in_itself_to_another_question_is_not_believed(
    pair: Pair, head: ReadHead
) -> None:
    """As far as its version is another one, its place is the right one, and its bytes are not."""
    (told,) = head.segments
    assert head.version is not None
    start = 8000 if head.version != VERSION else 7000

    def another(session: Session, _request: ReadRequest) -> None:
        whole = replace(head, epoch=session.node.epoch)
        data = DATA[told.start : told.start + told.length_bytes]
        session.send(answer(whole, data))

    client = knowing_client(pair)
    pair.first.script = [another]
    assert client.read(URI, start, start + told.length_bytes) == DATA[start:][: told.length_bytes]
    assert len(pair.first.requests) + len(pair.second.requests) == 2


def test_an_answer_in_two_frames_is_taken_as_ever(pair: Pair) -> None:
    def halves(session: Session, request: ReadRequest) -> None:
        ((start, end),) = request.ranges
        assert end is not None
        middle = start // PAGE * PAGE + PAGE
        one = ReadHead((segment(start, middle),), VERSION, epoch=session.node.epoch)
        two = ReadHead((segment(middle, end),), last=True, epoch=session.node.epoch)
        session.send(answer(one, DATA[start:middle]) + answer(two, DATA[middle:end]))

    client = knowing_client(pair)
    pair.first.behave = halves
    for start in (0, 7000, 100_001):
        assert client.read(URI, start, start + 150_000) == DATA[start : start + 150_000]
    assert (len(pair.first.requests), len(pair.second.requests)) == (3, 0)


@pytest.mark.parametrize("start", [0, 65_530, len(DATA) - 100])
@pytest.mark.parametrize("size", [200, 70_000])
def test_reads_are_cut_as_all_others(pair: Pair, start: int, size: int) -> None:
    client, buffer = knowing_client(pair), bytearray(size)
    expected = DATA[start : start + size]
    assert client.read(URI, start, start + size) == expected
    assert client.readinto(URI, buffer, start) == len(expected)
    assert buffer[: len(expected)] == expected
    assert client.pin(URI).read(start, start + size) == expected
