"""The TCP lane of a real server, spoken to byte by byte: bad clients, slow clients, bad files."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cachesvc.core.errors import (
    InvalidKey,
    NotCacheable,
    ObjectNotFound,
    RangeError,
    Unauthenticated,
)
from cachesvc.core.request import MAX_RANGES, ReadRequest
from cachesvc.core.types import ObjectName, ObjectVersion, Source
from cachesvc.lane import PENDING_INTERVAL_S
from cachesvc.wire import codec
from cachesvc.wire.frame import MAX_HEADER_BYTES, PROTOCOL_VERSION, Kind, encode
from cachesvc.wire.v1 import cache_pb2, cluster_pb2
from tests.integration.inprocess import GEOMETRY, HungUp, InProcessNode, RawClient, running
from tests.support import NAME, pattern, until

DATA = pattern((3 << 20) + 70_001)
END = len(DATA)
RANGES: list[tuple[int, int | None]] = [
    *((0, None), (0, 0), (0, 1), (END - 1, None), (END, None), (END, END + 9), (5, 5)),
    *((100, 70_000), (16_384, 32_768), (16_383, 32_769), ((1 << 20) - 1, (1 << 20) + 1)),
    *((500_000, 2_600_000), (END - 70_002, END), (0, 1 << 50)),
]


def expected(start: int, end: int | None) -> bytes:
    return DATA[start : END if end is None else end]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InProcessNode]:
    with running(tmp_path) as node:
        yield node


@pytest.fixture
def filled(node: InProcessNode) -> tuple[InProcessNode, ObjectVersion]:
    """A node that has the whole object."""
    version = node.put(DATA)
    with RawClient(node).greeted() as client:
        assert client.read() == DATA
    return node, version


# -- right answers


def test_a_hello_is_welcomed_with_the_settings_and_members(node: InProcessNode) -> None:
    with RawClient(node) as client:
        welcome = client.hello()
    assert welcome.protocol_version == PROTOCOL_VERSION
    assert welcome.node_id == "node-1"
    assert codec.unpack_geometry(welcome.config) == GEOMETRY
    assert [m.node_id for m in welcome.table.members] == ["node-1"]


@pytest.mark.parametrize("verify", [False, True])
def test_misses_and_hits_give_the_same_bytes(node: InProcessNode, verify: bool) -> None:
    node.put(DATA)
    with RawClient(node).greeted() as client:
        for _ in range(2):
            for wanted in RANGES:
                client.ask(ReadRequest(NAME, (wanted,), verify=verify))
                assert client.answer()[1] == expected(*wanted)
        client.ask(ReadRequest(NAME, ((0, None),)))
        assert client.answer()[2] == {Source.DISK}
        assert node.origin.landed_bytes == END


def test_many_ranges_come_in_one_answer(filled: tuple[InProcessNode, ObjectVersion]) -> None:
    node, _ = filled
    with RawClient(node).greeted() as client:
        assert client.read(*RANGES) == b"".join(expected(*wanted) for wanted in RANGES)
        many = [(number * 3001 % END, min(END, number * 3001 % END + 700)) for number in range(999)]
        assert client.read(*many) == b"".join(DATA[a:b] for a, b in many)
        wide = [(number, number + 150_000) for number in range(MAX_RANGES)]
        assert client.read(*wide) == b"".join(DATA[a:b] for a, b in wide)


def test_stat_names_the_version(filled: tuple[InProcessNode, ObjectVersion]) -> None:
    node, version = filled
    with RawClient(node).greeted() as client:
        head = client.stat()
        assert head.version == version
        assert 3000 < head.fresh_for_s <= 3600
        assert head.epoch == node.cluster.epoch
        with pytest.raises(ObjectNotFound, match="s3://bucket/none"):
            client.stat(ObjectName("bucket", "none"))
        assert client.stat().version == version


def test_pipelined_requests_are_answered_in_order(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, _ = filled
    cold = pattern(400_000, seed=9)
    node.put(cold, ObjectName("bucket", "cold"))
    requests, answers = b"", []
    for number in range(300):
        start = number * 7919 % END
        if number % 50 == 7:  # a miss among the hits
            request = ReadRequest(ObjectName("bucket", "cold"), ((number, number + 2000),))
            answers.append(cold[number : number + 2000])
        else:
            request = ReadRequest(NAME, ((start, start + 1500),))
            answers.append(DATA[start : start + 1500])
        requests += encode(Kind.READ, codec.pack_read(request, 0))
    with RawClient(node).greeted() as client:
        sender = Thread(target=client.sock.sendall, args=(requests,))
        sender.start()
        assert [client.answer()[1] for _ in answers] == answers
        sender.join()


def test_requests_may_come_byte_by_byte(filled: tuple[InProcessNode, ObjectVersion]) -> None:
    node, _ = filled
    with RawClient(node).greeted() as client:
        for byte in encode(Kind.READ, codec.pack_read(ReadRequest(NAME, ((3, 9),)), 0)):
            client.sock.sendall(bytes([byte]))
        assert client.answer()[1] == DATA[3:9]


def test_more_requests_than_the_node_reads_ahead_all_get_their_answer(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, _ = filled
    name = ObjectName("bucket", "k" * 1000)
    node.put(b"small", name)
    request = encode(Kind.READ, codec.pack_read(ReadRequest(name, ((0, None),)), 0))
    with RawClient(node).greeted() as client:
        sender = Thread(target=client.sock.sendall, args=(request * 2000,))
        sender.start()
        for _ in range(2000):
            assert client.answer(name)[1] == b"small"
        sender.join()


# -- errors that leave the connection usable


def test_an_error_is_an_answer_and_the_connection_goes_on(node: InProcessNode) -> None:
    version = node.put(DATA)
    node.put(DATA, ObjectName("bucket", "weak"), 'W/"weak"')
    with RawClient(node).greeted() as client:
        for _ in range(2):
            client.ask(ReadRequest(ObjectName("bucket", "none"), ((0, 1),)))
            with pytest.raises(ObjectNotFound):
                client.answer()
            with pytest.raises(RangeError):
                client.read((END + 1, None))
            assert client.read((0, 5)) == DATA[:5]
        bad = cache_pb2.ReadRequest(object=cache_pb2.ObjectName(bucket="b", key="a\0b"))
        for message, kind in ((bad, InvalidKey), (cache_pb2.ReadRequest(), InvalidKey)):
            client.send(Kind.READ, message.SerializeToString())
            with pytest.raises(kind):
                client.answer()
            client.send(Kind.STAT, message.SerializeToString())
            assert client.frame()[0] is Kind.STAT_ANSWER
        no_range = cache_pb2.ReadRequest(object=cache_pb2.ObjectName(bucket="b", key="k"))
        client.send(Kind.READ, no_range.SerializeToString())
        with pytest.raises(RangeError):
            client.answer()
        weak = ObjectVersion(ObjectName("bucket", "weak"), 'W/"weak"', END)
        client.ask(ReadRequest(weak.name, ((0, 1),), weak))
        with pytest.raises(NotCacheable):
            client.answer()
        assert client.stat().version == version


def test_bytes_that_are_no_message_are_an_error_and_the_connection_goes_on(
    node: InProcessNode,
) -> None:
    node.put(DATA)
    with RawClient(node).greeted() as client:
        client.send(Kind.READ, b"\xff\xff\xff")
        with pytest.raises(OSError, match="ReadRequest"):
            client.answer()
        client.send(Kind.STAT, b"\xff\xff\xff")
        assert client.frame()[0] is Kind.STAT_ANSWER
        assert client.read((0, 5)) == DATA[:5]


def test_an_object_without_a_strong_etag_is_read_by_a_bypass(node: InProcessNode) -> None:
    node.put(DATA, etag='W/"weak"')
    with RawClient(node).greeted() as client:
        assert client.read() == b""
        assert client.stat().version is not None
        for wanted in RANGES:
            client.ask(ReadRequest(NAME, (wanted,), bypass=True))
            version, data, sources = client.answer()
            assert data == expected(*wanted)
            assert sources <= {Source.BYPASS}
            assert not version.cacheable
    assert node.store.stored_count == 0


def test_an_origin_that_breaks_in_the_middle_is_an_error_and_no_short_answer(
    node: InProcessNode,
) -> None:
    version = node.put(DATA)
    gone = node.blocks(version)[2].start

    async def before(op: str, name: ObjectName, wanted: Any) -> None:
        if op == "get" and wanted.start >= gone:
            raise ZeroDivisionError

    node.origin.before = before
    with RawClient(node).greeted() as client:
        with pytest.raises(OSError, match="block 2"):
            client.read()
        assert client.read((0, gone)) == DATA[:gone]


# -- clients that do not speak our protocol


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", "something else"),
        (b"\x16\x03\x01\x02\x00", "something else"),
        (encode(Kind.HELLO, b"", 5), "requests have none"),
        (struct.pack(">2sBBIQ", b"CS", 99, 0, 0, 0), "kind 99"),
        (struct.pack(">2sBBIQ", b"CS", 1, 0, MAX_HEADER_BYTES + 1, 0), "65537 bytes"),
        (struct.pack(">2sBBIQ", b"CS", 1, 0, 2**32 - 1, 2**64 - 1), "bytes"),
        (encode(Kind.HELLO, b"\xff\xff"), "HelloRequest"),
        (encode(Kind.READ, b""), "before Hello"),
        (encode(Kind.STAT, b""), "before Hello"),
        (encode(Kind.WELCOME, b""), "before Hello"),
    ],
)
def test_whoever_begins_wrongly_is_told_why_and_hung_up_on(
    node: InProcessNode, sent: bytes, told: str
) -> None:
    node.put(DATA)
    with RawClient(node) as client:
        client.sock.sendall(sent)
        refusal = client.refusal()
    assert refusal.startswith("ProtocolError: ")
    assert told in refusal
    assert node.count("requests_total", op="hello", result="error") == 1
    with RawClient(node).greeted() as client:
        assert client.read((0, 5)) == DATA[:5]


@pytest.mark.parametrize("kind", [Kind.WELCOME, Kind.STAT_ANSWER, Kind.READ_ANSWER])
def test_an_answer_sent_to_a_node_is_refused(node: InProcessNode, kind: Kind) -> None:
    with RawClient(node).greeted() as client:
        client.send(kind, b"")
        assert "is no request" in client.refusal()


def test_garbage_behind_a_good_request_is_refused_after_its_answer(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, _ = filled
    request = encode(Kind.READ, codec.pack_read(ReadRequest(NAME, ((0, 9),)), 0))
    with RawClient(node).greeted() as client:
        client.sock.sendall(request + b"garbage" * 10)
        assert client.answer()[1] == DATA[:9]
        assert client.refusal().startswith("ProtocolError")


def test_a_client_that_goes_on_with_garbage_hears_one_refusal(node: InProcessNode) -> None:
    with RawClient(node) as client:
        with suppress(ConnectionError):
            for _ in range(20):
                client.sock.sendall(b"garbage")
        assert client.refusal().startswith("ProtocolError")
    until(lambda: node.lane.connection_count == 0, "it is hung up on")
    assert node.count("requests_total", op="hello", result="error") == 1


@pytest.mark.parametrize("protocol_version", [0, PROTOCOL_VERSION + 1, 2**32 - 1])
def test_another_protocol_version_is_refused_by_name(
    node: InProcessNode, protocol_version: int
) -> None:
    with RawClient(node) as client:
        message = cluster_pb2.HelloRequest(protocol_version=protocol_version)
        client.send(Kind.HELLO, message.SerializeToString())
        assert f"not {protocol_version}: upgrade the older side" in client.refusal()


def test_a_client_that_says_nothing_is_hung_up_on(tmp_path: Path) -> None:
    with running(tmp_path, stall_s=0.05) as node, RawClient(node) as silent:
        with RawClient(node) as slow:
            slow.sock.sendall(b"CS\x01")
            slow.hung_up()
        silent.hung_up()


# -- the token


def test_only_the_right_token_is_welcome(tmp_path: Path) -> None:
    with running(tmp_path, token="sésame") as node:
        node.put(DATA)
        for token in ("", "sesame", "sésam", "sésame2", "x" * 10_000):
            with RawClient(node) as client:
                client.send(
                    Kind.HELLO,
                    cluster_pb2.HelloRequest(
                        protocol_version=PROTOCOL_VERSION, token=token, client_id="me"
                    ).SerializeToString(),
                )
                refusal = client.refusal()
                assert refusal.startswith(f"{Unauthenticated.__name__}: node-1: me came with ")
                assert "sésame" not in refusal.removeprefix(token)
        with RawClient(node) as client:
            codec.raise_error(client.hello("sésame").error)
            assert client.read((0, 5)) == DATA[:5]


# -- clients that are slow or go away


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
            assert node.pinned_count == 0


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


# -- block files that are not what they should be


def test_a_file_cut_short_during_sendfile_ends_the_connection_and_the_next_read_is_right(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    block = node.blocks(version)[1]
    with RawClient(node, receive_bytes=8192).greeted() as client:
        client.ask(ReadRequest(NAME, ((0, None),) * 20))  # more than any socket buffers
        client.receive(100_000)
        os.truncate(node.path_of(block), 500_000)
        with pytest.raises(HungUp):
            client.receive(20 * END)
    assert node.count("corrupt_blocks_total", check="length") == 1
    assert node.count("device_healthy", device=str(node.directory)) == 1
    with RawClient(node).greeted() as client:
        assert client.read() == DATA
        assert client.read() == DATA
    assert len(node.origin.gets) > 4


def test_a_file_cut_short_before_the_answer_ends_the_connection_once(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, version = filled
    os.truncate(node.path_of(node.blocks(version)[0]), 0)
    with RawClient(node).greeted() as client, pytest.raises(HungUp):
        client.read((0, 1 << 20))
    with RawClient(node).greeted() as client:
        assert client.read() == DATA


@pytest.mark.parametrize("small", [True, False])
def test_a_flipped_byte_is_never_taken_for_a_right_one(
    filled: tuple[InProcessNode, ObjectVersion], small: bool
) -> None:
    node, version = filled
    with node.path_of(node.blocks(version)[0]).open("r+b") as file:
        file.seek(20_000)
        file.write(bytes([DATA[20_000] ^ 1]))
    with RawClient(node).greeted() as client:
        if small:
            assert client.read((19_990, 20_010)) == DATA[19_990:20_010]
        else:
            client.ask(ReadRequest(NAME, ((0, 1 << 20),)))
            with pytest.raises(AssertionError):
                client.answer()  # the checksum tells
    with RawClient(node).greeted() as client:
        assert client.read((0, None), verify=True) == DATA
        assert client.read() == DATA
    assert node.count("corrupt_blocks_total", check="page") == 1


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EPIPE])
def test_a_network_that_fails_is_no_fault_of_the_disk(
    filled: tuple[InProcessNode, ObjectVersion], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = filled

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with RawClient(node).greeted() as client, monkeypatch.context() as patch:
        patch.setattr("cachesvc.lane_thread.os.sendfile", fail)
        with pytest.raises(HungUp):
            client.read()
    assert node.count("device_healthy", device=str(node.directory)) == 1
    with RawClient(node).greeted() as client:
        assert client.read() == DATA


def test_a_disk_that_fails_under_sendfile_goes_out_of_use_and_the_origin_serves(
    filled: tuple[InProcessNode, ObjectVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = filled

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with RawClient(node).greeted() as client, monkeypatch.context() as patch:
        patch.setattr("cachesvc.lane_thread.os.sendfile", fail)
        with pytest.raises(HungUp):
            client.read()
    assert node.count("device_healthy", device=str(node.directory)) == 0
    with RawClient(node).greeted() as client:
        assert client.read() == DATA


@pytest.mark.parametrize("kind", [ConnectionResetError, BrokenPipeError])
def test_an_origin_that_raises_a_bare_connection_error_hangs_nobody(
    node: InProcessNode, kind: type[OSError]
) -> None:
    node.put(DATA)

    async def before(op: str, name: ObjectName, wanted: Any) -> None:
        raise kind("from below")

    node.origin.before = before
    with RawClient(node).greeted() as client, pytest.raises(OSError, match="defect"):
        client.read()


def test_a_defect_in_a_hit_hangs_nobody(
    filled: tuple[InProcessNode, ObjectVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = filled
    hit, good = node.reader.hit, 0

    def broken(request: ReadRequest) -> Any:
        if request.ranges[0] == (0, 6):
            raise ZeroDivisionError
        return hit(request)

    monkeypatch.setattr(node.reader, "hit", broken)
    for good in (0, 5):
        with RawClient(node).greeted() as client:
            for _ in range(good):  # behind other requests, too
                client.ask(ReadRequest(NAME, ((0, None),)))
            client.ask(ReadRequest(NAME, ((0, 6),)))
            for _ in range(good):
                assert client.answer()[1] == DATA
            with pytest.raises(HungUp):
                client.answer()


def test_work_that_breaks_on_a_lane_thread_stops_nobody_else(
    filled: tuple[InProcessNode, ObjectVersion],
) -> None:
    node, _ = filled

    def broken() -> None:
        raise ZeroDivisionError

    for thread in node.lane._threads:
        for _ in range(3):
            thread.post(broken)
    with RawClient(node).greeted() as client:
        assert client.read() == DATA


# -- going away


def test_draining_answers_what_is_under_way_and_hangs_up(node: InProcessNode) -> None:
    version = node.put(DATA)
    with RawClient(node).greeted() as busy, RawClient(node).greeted() as idle:
        with node.origin.holding(node.runner) as let_go:
            busy.ask(ReadRequest(NAME, ((0, None),), version))
            until(lambda: bool(node.lane._tasks), "the read has begun")
            drained = Thread(target=lambda: node.runner.run(node.lane.drain))
            drained.start()
            idle.hung_up()
            let_go()
            assert busy.answer()[1] == DATA
            busy.hung_up()
        drained.join()
    assert node.lane.connection_count == 0
