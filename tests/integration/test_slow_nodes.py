"""A node, or S3, that drips is given up; one that is honest and slow is not.

Story: only silence was limited, so that a node that sent one byte a second held a read for good,
and so did an S3 that was read directly.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from cachesvc_client import CacheClient

from cachesvc.core.errors import CacheError
from cachesvc.core.request import LEAST_BYTES_PER_S, ReadRequest
from cachesvc.core.ring import Member, MemberTable
from cachesvc.core.types import Source
from cachesvc.devorigin.ports import free_ports
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc.wire.frame import Kind, encode
from cachesvc.wire.v1 import cache_pb2, cluster_pb2
from tests.integration.client_lane.fake_node import Behaviour, FakeNode, Pair, Session
from tests.integration.client_lane.sample import DATA, URI, VERSION, answer, segment
from tests.integration.s3_origin.servers import DATA as S3_DATA
from tests.integration.s3_origin.servers import NAME as S3_NAME
from tests.integration.s3_origin.servers import Request, ScriptedServer, head_206

TICK_S = 0.02
SLOWNESS = threading.Event()  # of whoever sends: never set

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with contextlib.ExitStack() as exits:
        yield Pair(exits)


def drip(session: Session, data: bytes) -> None:
    for number in range(len(data)):
        session.send(data[number : number + 1])
        SLOWNESS.wait(TICK_S)


def dripping_body(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, len(DATA)),), VERSION), b"", len(DATA)))
    drip(session, DATA)


def dripping_header(session: Session, request: ReadRequest) -> None:
    drip(session, encode(Kind.READ_ANSWER, bytes(60_000)))


def dripping_segments(session: Session, request: ReadRequest) -> None:
    for start in range(len(DATA)):
        head = ReadHead((segment(start, start + 1),), VERSION)
        session.send(answer(head, DATA[start : start + 1]))
        SLOWNESS.wait(TICK_S)


def quick_then_dripping(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, 250_000),), VERSION), DATA[:250_000]))
    session.send(answer(ReadHead((segment(250_000, len(DATA)),)), b"", len(DATA) - 250_000))
    drip(session, DATA[250_000:])


@pytest.mark.parametrize(
    "behaviour",
    [dripping_body, dripping_header, dripping_segments, quick_then_dripping],
    ids=lambda one: one.__name__,
)
def test_a_node_that_drips_is_given_up_for_the_next_owner(pair: Pair, behaviour: Behaviour) -> None:
    pair.first.behave = behaviour
    assert pair.client().read(URI) == DATA
    assert len(pair.second.requests) == 1


def test_a_slow_network_above_the_least_rate_will_do(pair: Pair) -> None:
    step_bytes = 8 * int(LEAST_BYTES_PER_S * TICK_S)

    def slow(session: Session, request: ReadRequest) -> None:
        session.send(answer(ReadHead((segment(0, len(DATA)),), VERSION, 5.0), b"", len(DATA)))
        for start in range(0, len(DATA), step_bytes):
            SLOWNESS.wait(TICK_S)
            session.send(DATA[start : start + step_bytes])
        session.send(answer(ReadHead(last=True, epoch=session.node.epoch), b""))

    pair.first.behave = slow
    assert pair.client(silence_ms=300).read(URI) == DATA
    assert pair.second.requests == []


def test_many_short_ranges_that_are_fetched_one_by_one_will_do(pair: Pair) -> None:
    def slow(session: Session, request: ReadRequest) -> None:
        for start, end in request.ranges:
            assert end is not None
            SLOWNESS.wait(0.05)
            session.send(answer(ReadHead((segment(start, end),), VERSION), DATA[start:end]))
        session.send(answer(ReadHead(last=True, epoch=session.node.epoch), b""))

    client = pair.client(silence_ms=300)
    client.stat(URI)
    pair.first.behave = slow
    ranges = [(start, start + 10) for start in range(0, 20_000, 1000)]
    assert client.read_ranges(URI, ranges) == [DATA[start:end] for start, end in ranges]
    assert pair.second.requests == []


class DrippingRpc:
    """A gRPC node whose answers come as messages of a byte."""

    def __init__(self) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.request_count = 0
        self.over = threading.Event()
        self.server = grpc.server(ThreadPoolExecutor(4))
        methods = {
            "Hello": grpc.unary_unary_rpc_method_handler(
                self._hello,
                cluster_pb2.HelloRequest.FromString,
                cluster_pb2.Welcome.SerializeToString,
            ),
            "Read": grpc.unary_stream_rpc_method_handler(
                self._read, cache_pb2.ReadRequest.FromString, None
            ),
        }
        service = grpc.method_handlers_generic_handler("cachesvc.wire.v1.Cache", methods)
        self.server.add_generic_rpc_handlers((service,))
        self.server.add_insecure_port(self.address)
        self.server.start()

    def stop(self) -> None:
        self.over.set()
        self.server.stop(0).wait()

    def _hello(self, _hello: Any, _context: Any) -> cluster_pb2.Welcome:
        node = FakeNode("n0")
        node.stop()
        node.join(MemberTable([Member("n0", "127.0.0.1:1", self.address)]))
        return node.welcome()

    def _read(self, _message: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.request_count += 1
        start = 0
        while context.is_active() and not self.over.wait(TICK_S):
            sums = segment(start, start + 1).checksums
            head = ReadHead((SegmentHead(start, 1, Source.DISK, sums),), VERSION)
            header = codec.pack_read_head(head).SerializeToString()
            yield codec.pack_chunk_prefix(header, 1) + DATA[start : start + 1]
            start += 1


def test_a_node_that_drips_over_grpc_is_given_up() -> None:
    with contextlib.ExitStack() as exits:
        node = DrippingRpc()
        exits.callback(node.stop)
        client = CacheClient(
            f"grpc://{node.address}",
            origin={"endpoint_url": "http://127.0.0.1:1", "anonymous": True},
            silence_ms=150,
        )
        exits.callback(client.close)
        with pytest.raises(CacheError, match="fewer than 100000 bytes/s"):
            client.read(URI)
        assert node.request_count >= 1


def test_an_origin_that_drips_is_asked_again_and_given_up() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        connected.sendall(head_206(request))
        with contextlib.suppress(OSError):
            for number in range(len(S3_DATA)):
                connected.sendall(S3_DATA[number : number + 1])
                SLOWNESS.wait(TICK_S)
        return False

    with ScriptedServer(script) as server:
        settings = {"endpoint_url": server.url, "anonymous": True}
        client = CacheClient("127.0.0.1:1", origin=settings, origin_silence_ms=150)
        with client, pytest.raises(CacheError, match="fewer than 100000 bytes/s"):
            client.read(str(S3_NAME), 0, len(S3_DATA))
        assert len(server.requests) == 4
