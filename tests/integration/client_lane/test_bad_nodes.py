"""Whatever a node does, the bytes come right, from it or from the honest node behind it."""

from __future__ import annotations

import pytest

from cachesvc.core.errors import CacheError
from cachesvc.core.request import ReadRequest
from cachesvc.wire.codec import ReadHead
from tests.integration.client_lane.behaviours import BAD, flipped_byte, goes_on_after_the_end
from tests.integration.client_lane.fake_node import Behaviour, Pair, Session
from tests.integration.client_lane.sample import DATA, URI, VERSION, answer, segment


@pytest.mark.parametrize("behaviour", BAD, ids=lambda one: one.__name__)
def test_whatever_a_node_does_the_bytes_come_right_from_the_next(
    pair: Pair, behaviour: Behaviour
) -> None:
    pair.first.behave = behaviour
    client = pair.client()
    for _ in range(3):
        assert client.read(URI) == DATA
        assert client.read(URI, 1000, 200_500) == DATA[1000:200_500]
        assert client.read(URI, 1000, 2000) == DATA[1000:2000]
    buffer = bytearray(len(DATA))
    assert client.readinto(URI, buffer) == len(DATA)
    assert buffer == DATA


def test_a_large_body_in_small_pieces_is_received_whole(pair: Pair) -> None:
    def in_pieces(session: Session, request: ReadRequest) -> None:
        head = ReadHead((segment(0, len(DATA)),), VERSION, last=True)
        session.send(answer(head, b"", len(DATA)))
        for start in range(0, len(DATA), 7_000):
            session.send(DATA[start : start + 7_000])

    pair.first.behave = in_pieces
    client = pair.client()
    for _ in range(3):
        assert client.read(URI) == DATA
    assert pair.second.requests == []


def test_flipped_bytes_are_asked_for_again_checked_by_the_same_node(pair: Pair) -> None:
    pair.first.script = [flipped_byte]
    assert pair.client().read(URI) == DATA
    assert [one.verify for one in pair.first.requests] == [False, True]
    assert pair.second.requests == []


@pytest.mark.slow  # botocore tries the origin several times
def test_bytes_that_stay_wrong_everywhere_are_never_handed_out(pair: Pair) -> None:
    pair.first.behave = pair.second.behave = flipped_byte
    with pytest.raises(CacheError, match=r"checksum.*origin"):
        pair.client().read(URI)


def test_an_answer_that_goes_on_after_its_end_does_not_become_the_next_answer(pair: Pair) -> None:
    pair.first.script = [goes_on_after_the_end]
    client = pair.client()
    assert client.read(URI) == DATA
    assert client.read(URI, 5, 25) == DATA[5:25]
