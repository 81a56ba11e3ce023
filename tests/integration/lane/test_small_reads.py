"""Small hot reads over real sockets: whole, in order, and only to whom they are due."""

from __future__ import annotations

import os
from threading import Thread

import pytest

from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectVersion, Source
from cachesvc.small import MAX_UNTOLD
from cachesvc.wire import codec, lone
from cachesvc.wire.frame import Kind, encode
from tests.integration.inprocess import GEOMETRY, InProcessNode, RawClient
from tests.integration.lane.sample import DATA
from tests.support import NAME, until

PAGE_BYTES = GEOMETRY.page_bytes


def test_the_same_small_read_is_answered_from_memory_and_right(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        for times in range(4):
            client.ask(ReadRequest(NAME, ((100, 5000),), version))
            assert client.answer() == (version, DATA[100:5000], {Source.DISK})
            node.reader.small.settle()
            kept = [one.frame for one in node.reader.small._kept.values()]
            assert [bool(frame) for frame in kept] == [[], [False], [True], [True]][times]


def test_what_is_to_be_counted_does_not_pile_up_while_one_reads_without_a_pause(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        for start in range(20 * MAX_UNTOLD):
            client.ask(ReadRequest(NAME, ((start, start + 9),), version))
            assert client.answer()[1] == DATA[start : start + 9]
            assert len(node.reader.small._untold) <= MAX_UNTOLD


def test_nobody_is_answered_before_hello(filled: tuple[InProcessNode, ObjectVersion]) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        for _ in range(3):
            client.ask(ReadRequest(NAME, ((100, 5000),), version))
            client.answer()
            node.reader.small.settle()
    assert node.reader.small.kept_bytes > 0
    with RawClient(node) as stranger:
        stranger.ask(ReadRequest(NAME, ((100, 5000),), version))
        assert "before Hello" in stranger.refusal()


def test_a_client_that_takes_nothing_yet_gets_all_answers_in_order(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    beginning = lone.request_start(version)
    starts = [number * 79 % 190 * PAGE_BYTES for number in range(600)]
    with RawClient(node, receive_bytes=4096).greeted() as client:

        def ask() -> None:
            for start in starts:
                client.sock.sendall(lone.pack_read(beginning, start, start + PAGE_BYTES, 0))

        asking = Thread(target=ask)
        asking.start()
        hits = "requests_total"
        until(lambda: node.count(hits, op="read", result="hit") > 3, "it is being answered")
        for start in starts:
            assert client.answer()[1] == DATA[start : start + PAGE_BYTES]
        asking.join()


@pytest.mark.parametrize("piece_bytes", [1, 7, 50])
def test_a_small_read_that_comes_in_pieces_is_answered_all_the_same(
    filled: tuple[InProcessNode, ObjectVersion], piece_bytes: int
) -> None:
    node, version = filled
    frame = encode(Kind.READ, codec.pack_read(ReadRequest(NAME, ((3, 9),), version), 0))
    with RawClient(node).greeted() as client:
        for _ in range(3):
            for start in range(0, len(frame), piece_bytes):
                client.sock.sendall(frame[start : start + piece_bytes])
            assert client.answer()[1] == DATA[3:9]


def test_a_node_that_drains_hangs_up_on_whoever_reads_small(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        for _ in range(2):
            client.ask(ReadRequest(NAME, ((3, 9),), version))
            assert client.answer()[1] == DATA[3:9]
        node.runner.run(node.lane.drain)
        client.hung_up()


def test_a_reader_that_checks_again_is_not_answered_from_memory(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        for _ in range(3):
            client.ask(ReadRequest(NAME, ((3, 9),), version))
            client.answer()
            node.reader.small.settle()
        assert node.reader.small.kept_bytes > 0
        with node.path_of(node.blocks(version)[0]).open("r+b") as file:
            file.write(b"\0" * 100)
        client.ask(ReadRequest(NAME, ((3, 9),), version))
        assert client.answer()[1] == DATA[3:9]
        assert node.count("corrupt_blocks_total", check="page") == 0
        client.ask(ReadRequest(NAME, ((3, 9),), version, verify=True))
        assert client.answer()[1] == DATA[3:9]
        assert node.count("corrupt_blocks_total", check="page") == 1
        gets = len(node.origin.gets)
        client.ask(ReadRequest(NAME, ((3, 9),), version))
        assert client.answer()[1] == DATA[3:9]
        assert len(node.origin.gets) == gets


def test_a_block_file_that_was_changed_on_the_disk_under_a_checked_page_is_found(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    path = node.path_of(node.blocks(version)[0])
    with RawClient(node).greeted() as client:

        def read(start: int, end: int) -> None:
            client.ask(ReadRequest(NAME, ((start, end),), version))
            assert client.answer()[1] == DATA[start:end]

        read(3, 9)
        with path.open("r+b") as file:
            file.seek(100)
            file.write(bytes([DATA[100] ^ 1]))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        read(4, 9)
        read(99, 101)
        assert node.count("corrupt_blocks_total", check="page") == 1
        read(98, 101)
        assert node.count("corrupt_blocks_total", check="page") == 1
