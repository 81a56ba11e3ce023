"""The TCP lane, spoken to byte by byte: right answers, whoever asks how."""

from __future__ import annotations

from threading import Thread

import pytest

from cachesvc.core.errors import ObjectNotFound
from cachesvc.core.request import MAX_RANGES, ReadRequest
from cachesvc.core.types import ObjectName, ObjectVersion, Source
from cachesvc.wire import codec
from cachesvc.wire.frame import PROTOCOL_VERSION, Kind, encode
from tests.integration.inprocess import GEOMETRY, InProcessNode, RawClient
from tests.integration.lane.sample import DATA, END, RANGES, expected
from tests.support import NAME, pattern


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
