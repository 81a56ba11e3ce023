"""Clients that do not speak our protocol, or have no right to."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest

from cachesvc.core.errors import Unauthenticated
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectVersion
from cachesvc.wire import codec
from cachesvc.wire.frame import MAX_HEADER_BYTES, PROTOCOL_VERSION, Kind, encode
from cachesvc.wire.v1 import cluster_pb2
from tests.integration.inprocess import InProcessNode, RawClient, running
from tests.integration.lane.sample import DATA
from tests.support import NAME, until


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
