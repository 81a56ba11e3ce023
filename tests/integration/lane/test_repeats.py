"""Large hot reads asked for again: the same answer, as long as its files are what they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachesvc.core.request import ReadRequest
from cachesvc.core.ring import Member
from cachesvc.core.types import ObjectVersion, Source
from tests.integration.inprocess import GEOMETRY, InProcessNode, RawClient, running
from tests.integration.lane.sample import DATA
from tests.support import NAME, pattern, until

BLOCK, PAGE = GEOMETRY.block_bytes, GEOMETRY.page_bytes
Filled = tuple[InProcessNode, ObjectVersion]


def kept_count(node: InProcessNode) -> int:
    return len(node.lane._repeats._kept)


def ask(client: RawClient, version: ObjectVersion, *ranges: tuple[int, int | None]) -> bytes:
    client.ask(ReadRequest(NAME, ranges, version))
    named, data, sources = client.answer()
    assert (named, sources) == (version, {Source.DISK})
    return data


@pytest.mark.parametrize(
    "ranges",
    [
        [(0, BLOCK + 8 * PAGE)],
        [(PAGE, 2 * BLOCK)],
        [(0, None)],
        [(BLOCK - 5 * PAGE, BLOCK + 9 * PAGE)],
        [(2 * PAGE, 9 * PAGE), (BLOCK, BLOCK + 8 * PAGE)],
    ],
)
def test_a_large_read_asked_again_is_the_same_and_counted(
    filled: Filled, ranges: list[tuple[int, int | None]]
) -> None:
    node, version = filled
    expected = b"".join(DATA[start:end] for start, end in ranges)
    before = node.count("requests_total", op="read", result="hit")
    with RawClient(node).greeted() as client:
        for _ in range(4):
            assert ask(client, version, *ranges) == expected
            until(lambda: kept_count(node) == 1, "it is kept")
    until(
        lambda: node.count("requests_total", op="read", result="hit") == before + 4,
        "each is counted, once",
    )


@pytest.mark.parametrize("wanted", [(0, 8 * PAGE), (PAGE, BLOCK), (9, 3 * PAGE), (7, BLOCK - 7)])
def test_a_range_of_one_block_is_made_anew_each_time_and_counted(
    filled: Filled, wanted: tuple[int, int]
) -> None:
    node, version = filled
    before = node.count("requests_total", op="read", result="hit")
    bytes_before = node.count("read_bytes_total", source="disk")
    with RawClient(node).greeted() as client:
        for _ in range(4):
            assert ask(client, version, wanted) == DATA[slice(*wanted)]
        for _ in range(2):  # the second goes the common way
            client.ask(ReadRequest(NAME, (wanted,), version))
        for _ in range(2):
            assert client.answer()[1] == DATA[slice(*wanted)]
    assert kept_count(node) == 0
    until(
        lambda: node.count("requests_total", op="read", result="hit") == before + 6,
        "each is counted, once",
    )
    sent = node.count("read_bytes_total", source="disk") - bytes_before
    assert sent == 6 * (wanted[1] - wanted[0])


def test_what_is_checked_here_is_not_kept(filled: Filled) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        for ranges in (
            [(1, 2 * BLOCK)],
            [(0, PAGE), (BLOCK, BLOCK + PAGE)],
            [(5, 2 * PAGE), (0, 2 * PAGE)],
        ):
            for _ in range(2):
                ask(client, version, *ranges)
        assert client.read((0, BLOCK)) == DATA[:BLOCK]  # of no version that it names
    assert kept_count(node) == 0


def test_one_client_after_another_gets_it_and_nobody_before_hello(filled: Filled) -> None:
    node, version = filled
    for _ in range(3):
        with RawClient(node).greeted() as client:
            assert ask(client, version, (0, BLOCK)) == DATA[:BLOCK]
    with RawClient(node) as stranger:
        stranger.ask(ReadRequest(NAME, ((0, BLOCK),), version))
        assert "before Hello" in stranger.refusal()


def test_requests_sent_together_are_answered_in_order(filled: Filled) -> None:
    node, version = filled
    ranges = [(number % 3 * PAGE, BLOCK) for number in range(12)]
    with RawClient(node).greeted() as client:
        for _ in range(2):
            for one in ranges:
                client.ask(ReadRequest(NAME, (one,), version))
            for start, end in ranges:
                assert client.answer()[1] == DATA[start:end]


@pytest.mark.parametrize("end", [None, BLOCK])
def test_a_client_that_leaves_in_mid_answer_leaves_no_pin(filled: Filled, end: int | None) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        ask(client, version, (0, end))
    for _ in range(3):
        with RawClient(node, receive_bytes=4096).greeted() as client:
            client.ask(ReadRequest(NAME, ((0, end),), version))
            client.receive(1)


def test_a_block_that_was_dropped_is_filled_again_and_told_as_such(filled: Filled) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        ask(client, version, (0, BLOCK))
        pin = node.store.pin(node.blocks(version)[0])
        assert pin is not None
        node.store.drop(pin, "page")
        pin.close()
        client.ask(ReadRequest(NAME, ((0, BLOCK),), version))
        assert client.answer() == (version, DATA[:BLOCK], {Source.ORIGIN})
        assert ask(client, version, (0, BLOCK)) == DATA[:BLOCK]
        assert ask(client, version, (0, BLOCK)) == DATA[:BLOCK]


def test_a_damaged_page_is_told_by_its_checksum_and_mended_by_verify(filled: Filled) -> None:
    node, version = filled
    path = node.path_of(node.blocks(version)[0])
    with RawClient(node).greeted() as client:
        assert ask(client, version, (0, BLOCK)) == DATA[:BLOCK]
        with path.open("r+b") as file:
            file.seek(3 * PAGE + 7)
            file.write(bytes([DATA[3 * PAGE + 7] ^ 1]))
        with pytest.raises(AssertionError):  # what a client sees
            ask(client, version, (0, BLOCK))
    with RawClient(node).greeted() as client:
        client.ask(ReadRequest(NAME, ((0, BLOCK),), version, verify=True))
        assert client.answer()[1] == DATA[:BLOCK]
        for _ in range(2):
            assert ask(client, version, (0, BLOCK)) == DATA[:BLOCK]


def test_another_version_is_another_request(filled: Filled) -> None:
    node, version = filled
    other = pattern(len(DATA), 9)
    with RawClient(node).greeted() as client:
        assert ask(client, version, (0, BLOCK)) == DATA[:BLOCK]
        newer = node.put(other)
        client.ask(ReadRequest(NAME, ((0, BLOCK),), newer))
        assert client.answer()[1] == other[:BLOCK]
        assert ask(client, version, (0, BLOCK)) == DATA[:BLOCK], "of the version that is named"
        assert ask(client, newer, (0, BLOCK)) == other[:BLOCK]


def test_a_new_epoch_is_told(filled: Filled) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        before = node.cluster.epoch
        for _ in range(2):
            client.ask(ReadRequest(NAME, ((0, BLOCK),), version))
            assert client.head()[0].epoch == before
        node.cluster.learn(Member("node-2", "127.0.0.1:2", "127.0.0.1:3", 1))
        assert node.cluster.epoch != before
        for _ in range(2):
            client.ask(ReadRequest(NAME, ((0, BLOCK),), version))
            assert client.head()[0].epoch == node.cluster.epoch


def test_no_more_is_kept_than_the_bound(tmp_path: Path) -> None:
    with running(tmp_path) as node, RawClient(node).greeted() as client:
        version = node.put(DATA)
        assert client.read() == DATA
        repeats = node.lane._repeats
        repeats._kept._max_bytes = 10_000
        for number in range(40):
            start, end = number * PAGE, BLOCK + 8 * PAGE
            assert ask(client, version, (start, end)) == DATA[start:end]
            assert repeats.kept_bytes <= 10_000
        assert 1 < kept_count(node) < 10


def test_who_asks_with_verify_has_what_is_kept_of_the_object_made_anew(filled: Filled) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        end = BLOCK + 8 * PAGE
        assert ask(client, version, (0, end)) == DATA[:end]
        until(lambda: kept_count(node) == 1, "it is kept")
        client.ask(ReadRequest(NAME, ((0, end),), version, verify=True))
        assert client.answer()[1] == DATA[:end]
        assert kept_count(node) == 0
        assert ask(client, version, (0, end)) == DATA[:end]
