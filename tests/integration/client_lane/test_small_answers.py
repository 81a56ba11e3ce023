"""Small reads of a version that the client knows: their answer is expected to the byte."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from cachesvc_client import CacheClient

from cachesvc.core.errors import Overloaded
from cachesvc.core.request import ReadRequest
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import Kind, encode
from tests.integration.client_lane.fake_node import Pair, Session
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
