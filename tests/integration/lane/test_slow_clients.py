"""Clients that are slow or go away hold nobody up and leave nothing."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectVersion
from cachesvc.lane import PENDING_INTERVAL_S
from cachesvc.wire import codec
from cachesvc.wire.frame import Kind
from cachesvc.wire.v1 import cache_pb2
from tests.integration.inprocess import InProcessNode, RawClient, running
from tests.integration.lane.sample import DATA, END
from tests.support import NAME, until


def test_a_client_that_does_not_read_holds_nobody_up(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, _ = filled
    with ExitStack() as stack:
        lazy = [
            stack.enter_context(RawClient(node, receive_bytes=8192).greeted()) for _ in range(20)
        ]
        for client in lazy:
            client.ask(ReadRequest(NAME, ((0, None),)))
        brisk = [stack.enter_context(RawClient(node).greeted()) for _ in range(4)]
        for client in brisk:
            assert client.read() == DATA
        assert node.coalescer.buffer_bytes == 0
        assert node.pinned_count > 0
        assert lazy[0].answer()[1] == DATA  # and it may wake up
    until(lambda: node.pinned_count == 0, "those who left hold nothing")


@pytest.mark.parametrize("sizes", [(4096, 16_384), (1, 4096, 9000, 16_384, 70_000, 100_000)])
@pytest.mark.parametrize("pause", [False, True])
def test_a_client_that_reads_late_gets_every_answer_whole_and_in_order(
    filled: tuple[InProcessNode, ObjectVersion], pause: bool, sizes: tuple[int, ...]
) -> None:
    """Small, aligned and odd ranges, asked one after another: the socket takes some in part, or not
    at all. pause: each is asked when the one before has been received, or is stuck.
    """
    node, version = filled
    rng, ranges = random.Random(18), list[tuple[int, int]]()
    for number in range(300):
        size = rng.choice(sizes)
        start = rng.randrange(END - size)
        ranges.append((start - start % 16_384, start - start % 16_384 + size))
        if number % 3 and len(sizes) > 2:  # else small ones alone, within a page
            ranges[-1] = start, start + size
    with RawClient(node, receive_bytes=4096).greeted() as late:
        late.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else they come together
        for one in ranges:
            late.ask(ReadRequest(NAME, (one,), version))
            if pause:
                Event().wait(0.001)
        for start, end in ranges:
            assert late.answer()[1] == DATA[start:end]
    until(lambda: node.pinned_count == 0, "nothing is held")


def test_a_client_that_does_not_read_a_fill_holds_one_segment_at_a_time(
    node: InProcessNode,
) -> None:
    node.put(DATA)
    with RawClient(node, receive_bytes=8192).greeted() as lazy:
        lazy.ask(ReadRequest(NAME, ((0, None),)))
        with RawClient(node).greeted() as brisk:
            assert brisk.read() == DATA
        until(lambda: node.coalescer.flight_count == 0, "the fill does not wait for the lazy one")
        assert node.coalescer.buffer_bytes == 0
        assert lazy.answer()[1] == DATA
    assert node.origin.landed_bytes == END


def test_a_client_that_takes_nothing_for_too_long_is_hung_up_on(tmp_path: Path) -> None:
    with running(tmp_path, stall_s=0.2) as node:
        node.put(DATA)
        with RawClient(node).greeted() as client:
            assert client.read() == DATA
        with RawClient(node, receive_bytes=4096).greeted() as lazy:
            for _ in range(20):
                lazy.ask(ReadRequest(NAME, ((0, None),)))
            until(lambda: node.lane.connection_count == 0, "it is hung up on")
            until(lambda: node.pinned_count == 0, "what it held is let go")


def test_a_client_that_hangs_up_stops_its_fill(node: InProcessNode) -> None:
    node.put(DATA)
    with node.origin.holding(node.runner):
        with RawClient(node).greeted() as client:
            client.ask(ReadRequest(NAME, ((0, None),)))
            until(lambda: bool(node.lane._tasks), "the read has begun")
        until(lambda: not node.lane._tasks, "the read has ended")
    until(node.quiet, "nothing goes on")
    assert node.origin.landed_bytes == 0


def test_a_client_that_hangs_up_in_the_middle_of_a_fill_leaves_nothing(
    node: InProcessNode,
) -> None:
    version = node.put(DATA)
    with RawClient(node).greeted() as client:
        client.stat()
        with node.origin.holding(node.runner):
            client.ask(ReadRequest(NAME, ((0, None),), version))
            until(lambda: node.origin.active_count == 4, "the GETs are under way")
            client.sock.close()
            until(lambda: node.origin.active_count == 0, "the GETs are stopped")
    assert node.store.stored_count == 0


@pytest.mark.parametrize("taken_bytes", [0, 1, 16, 5000, 1_000_000, 2_500_000])
@pytest.mark.parametrize("cold", [False, True])
def test_a_client_that_hangs_up_in_mid_answer_leaves_no_pin(
    node: InProcessNode, taken_bytes: int, cold: bool
) -> None:
    node.put(DATA)
    if not cold:
        with RawClient(node).greeted() as client:
            client.read()
    for reset in (False, True):
        with RawClient(node, receive_bytes=8192).greeted() as client:
            client.ask(ReadRequest(NAME, ((0, None),)))
            client.receive(taken_bytes)
            if reset:
                linger = struct.pack("ii", 1, 0)
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        until(lambda: node.lane.connection_count == 0, "the connection is gone")
        until(node.quiet, "nothing is held")
    with RawClient(node).greeted() as client:
        assert client.read() == DATA
    assert node.count("device_healthy", device=str(node.directory)) == 1


def test_one_of_two_readers_hanging_up_does_not_disturb_the_other(node: InProcessNode) -> None:
    version = node.put(DATA)
    with RawClient(node).greeted() as stays, RawClient(node).greeted() as goes:
        with node.origin.holding(node.runner):
            for client in (goes, stays):
                client.ask(ReadRequest(NAME, ((0, None),), version))
            until(lambda: len(node.lane._tasks) == 2, "both wait")
            goes.sock.close()
            until(lambda: len(node.lane._tasks) == 1, "one has left")
        assert stays.answer()[1] == DATA
    assert node.origin.landed_bytes == END


def test_while_the_origin_hangs_the_node_says_that_it_lives(node: InProcessNode) -> None:
    version = node.put(DATA)
    with RawClient(node).greeted() as client:
        with node.origin.holding(node.runner):
            client.ask(ReadRequest(NAME, ((0, 9),), version))
            for _ in range(2):
                kind, header, _ = client.frame()
                head = codec.unpack_read_head(NAME, codec.parse(cache_pb2.ReadHeader, header))
                assert (kind, head.pending, head.last) == (Kind.READ_ANSWER, True, False)
        assert client.answer()[1] == DATA[:9]
        assert PENDING_INTERVAL_S <= 0.5
