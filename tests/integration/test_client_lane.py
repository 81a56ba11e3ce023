"""The client against a node that misbehaves in every way that a socket allows.

`FakeNode` speaks frames on a thread; a test gives it the behaviour for the next read. Behind it
stands a second, honest node: whatever the first one does, the bytes must come out right.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cachesvc_client import CacheClient, ProtocolError

from cachesvc.core.blocks import cuts
from cachesvc.core.errors import CacheError, ObjectNotFound, Overloaded, Unauthenticated
from cachesvc.core.format import checksum
from cachesvc.core.request import ReadRequest
from cachesvc.core.ring import Member, MemberTable, Ring
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion, Source, clamp
from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.devorigin.faults import KINDS
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc.wire.frame import MAX_BODY_BYTES, PROTOCOL_VERSION, Kind, RequestDecoder, encode
from cachesvc.wire.v1 import cache_pb2, cluster_pb2

NAME = ObjectName("b", "k")
URI = str(NAME)
DATA = random.Random(11).randbytes(300_000)
VERSION = ObjectVersion(NAME, '"etag"', len(DATA))
GEOMETRY = Geometry()
PAGE = GEOMETRY.page_bytes

Behaviour = Callable[["Session", ReadRequest], None]


def segment(start: int, end: int, source: Source = Source.DISK) -> SegmentHead:
    sums = b"".join(checksum(DATA[s:e]) for s, e in cuts(start, end, PAGE))
    return SegmentHead(start, end - start, source, sums)


def answer(head: ReadHead, body: bytes, body_bytes: int | None = None) -> bytes:
    header = codec.pack_read_head(head).SerializeToString()
    return encode(Kind.READ_ANSWER, header, len(body) if body_bytes is None else body_bytes) + body


def honest(session: Session, request: ReadRequest) -> None:
    wanted = [clamp(NAME, start, end, len(DATA)) for start, end in request.ranges]
    for one in wanted:
        head = ReadHead((segment(one.start, one.end),), VERSION, 5.0, epoch=session.node.epoch)
        session.send(answer(head, DATA[one.start : one.end]))
    session.send(answer(ReadHead(last=True, epoch=session.node.epoch), b""))


class Session:
    """One connection that a fake node serves."""

    def __init__(self, node: FakeNode, sock: socket.socket) -> None:
        self.node = node
        self.sock = sock

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def wait_for_end(self) -> None:
        """Stay silent until the client hangs up."""
        with contextlib.suppress(OSError):
            while self.sock.recv(1 << 16):
                pass

    def serve(self) -> None:
        decoder = RequestDecoder()
        while data := self.sock.recv(1 << 16):
            decoder.feed(data)
            while (found := decoder.next()) is not None:
                self.answer(*found)

    def answer(self, kind: Kind, header: bytes) -> None:
        node = self.node
        if kind is Kind.HELLO:
            node.hellos += 1
            self.send(encode(Kind.WELCOME, node.welcome().SerializeToString()))
        elif kind is Kind.STAT:
            message = codec.pack_stat_answer(VERSION, 5.0, node.epoch)
            self.send(encode(Kind.STAT_ANSWER, message.SerializeToString()))
        else:
            request = codec.unpack_read(codec.parse(cache_pb2.ReadRequest, header))
            node.requests.append(request)
            behave = node.script.pop(0) if node.script else node.behave
            behave(self, request)


class FakeNode:
    """A node on a thread, honest unless told otherwise. `script`: for the next reads, in order."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.table = MemberTable()
        self.epoch = 0
        self.error: cluster_pb2.Error | None = None
        self.behave: Behaviour = honest
        self.script: list[Behaviour] = []
        self.requests: list[ReadRequest] = []
        self.hellos = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sessions: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def member(self) -> Member:
        return Member(self.node_id, self.address)

    def join(self, table: MemberTable) -> None:
        self.table, self.epoch = table, table.epoch

    def welcome(self) -> cluster_pb2.Welcome:
        return cluster_pb2.Welcome(
            protocol_version=PROTOCOL_VERSION,
            node_id=self.node_id,
            config=codec.pack_geometry(GEOMETRY, 512),
            table=codec.pack_table(self.table),
            error=self.error,
        )

    def hang_up(self) -> None:
        for sock in self._sessions:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.hang_up()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._sessions.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, CacheError):
            Session(self, sock).serve()


class Pair:
    """The keeper of NAME, which misbehaves, and the honest node behind it."""

    def __init__(self, exits: contextlib.ExitStack) -> None:
        nodes = [FakeNode("n0"), FakeNode("n1")]
        table = MemberTable(node.member for node in nodes)
        keeper = Ring(table).owner(NAME, 0)
        assert keeper is not None
        for node in nodes:
            node.join(table)
            exits.callback(node.stop)
        self.first = next(node for node in nodes if node.node_id == keeper.node_id)
        self.second = next(node for node in nodes if node is not self.first)
        self._exits = exits

    def client(self, **settings: Any) -> CacheClient:
        settings = {"silence_ms": 150, "hello_timeout_ms": 150, **settings}
        made = CacheClient(
            f"{self.first.address},{self.second.address}",
            origin={"endpoint_url": "http://127.0.0.1:1", "anonymous": True},
            **settings,
        )
        self._exits.callback(made.close)
        return made


@pytest.fixture
def pair() -> Iterator[Pair]:
    with contextlib.ExitStack() as exits:
        yield Pair(exits)


# -- what a bad node may do; each sends, or not, to a client that asked for [0, len(DATA))


def flipped_byte(session: Session, request: ReadRequest) -> None:
    body = bytearray(DATA)
    body[200_000] ^= 1
    session.send(answer(ReadHead((segment(0, len(DATA)),), VERSION, last=True), bytes(body)))


def no_checksums(session: Session, request: ReadRequest) -> None:
    head = SegmentHead(0, len(DATA), Source.DISK, b"")
    session.send(answer(ReadHead((head,), VERSION, last=True), DATA))


def unchecked_bypass(session: Session, request: ReadRequest) -> None:
    head = SegmentHead(0, len(DATA), Source.BYPASS, b"")
    session.send(answer(ReadHead((head,), VERSION, last=True), b"?" * len(DATA)))


def short_answer(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, 1000),), VERSION, last=True), DATA[:1000]))


def no_bytes_at_all(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((), VERSION, last=True), b""))


def too_long(session: Session, request: ReadRequest) -> None:
    longer = DATA + b"x"
    head = SegmentHead(0, len(longer), Source.DISK, b"".join(
        checksum(longer[s:e]) for s, e in cuts(0, len(longer), PAGE)
    ))  # fmt: skip
    session.send(answer(ReadHead((head,), VERSION, last=True), longer))


def reordered(session: Session, request: ReadRequest) -> None:
    heads = segment(100_000, len(DATA)), segment(0, 100_000)
    session.send(answer(ReadHead(heads, VERSION, last=True), DATA[100_000:] + DATA[:100_000]))


def overlapping(session: Session, request: ReadRequest) -> None:
    heads = segment(0, 100_000), segment(90_000, len(DATA))
    session.send(answer(ReadHead(heads, VERSION, last=True), DATA[:100_000] + DATA[90_000:]))


def body_unlike_header(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, 1000),), VERSION), DATA[:1001]))


def oversized_frame(session: Session, request: ReadRequest) -> None:
    head = ReadHead((SegmentHead(0, MAX_BODY_BYTES + 1, Source.DISK, b""),), VERSION)
    session.send(answer(head, b"", MAX_BODY_BYTES + 1))


def oversized_header(session: Session, request: ReadRequest) -> None:
    session.send(b"CS\x06\x00" + (1 << 30).to_bytes(4, "big") + bytes(8))


def no_frame(session: Session, request: ReadRequest) -> None:
    session.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def no_protobuf(session: Session, request: ReadRequest) -> None:
    session.send(encode(Kind.READ_ANSWER, b"\xff" * 20))


def wrong_kind(session: Session, request: ReadRequest) -> None:
    session.send(encode(Kind.WELCOME, b""))


def two_versions(session: Session, request: ReadRequest) -> None:
    other = ObjectVersion(NAME, '"other"', len(DATA))
    session.send(answer(ReadHead((segment(0, 1000),), VERSION), DATA[:1000]))
    session.send(answer(ReadHead((segment(1000, 2000),), other), DATA[1000:2000]))


def no_version(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, len(DATA)),), last=True), DATA))


def goes_on_after_the_end(session: Session, request: ReadRequest) -> None:
    honest(session, request)
    session.send(answer(ReadHead((segment(0, 10),), VERSION, last=True), DATA[:10]))


def hang_after_the_header(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, len(DATA)),), VERSION), DATA[:1000], len(DATA)))
    session.wait_for_end()


def close_in_mid_body(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, len(DATA)),), VERSION), DATA[:1000], len(DATA)))
    session.sock.shutdown(socket.SHUT_RDWR)


def close_at_once(session: Session, request: ReadRequest) -> None:
    session.sock.shutdown(socket.SHUT_RDWR)


def silent(session: Session, request: ReadRequest) -> None:
    session.wait_for_end()


def overloaded(session: Session, request: ReadRequest) -> None:
    message = codec.pack_error_head(Overloaded("full"))
    session.send(encode(Kind.READ_ANSWER, message.SerializeToString()))


def error_in_mid_answer(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, 1000),), VERSION), DATA[:1000]))
    overloaded(session, request)


BAD: list[Behaviour] = [
    flipped_byte, no_checksums, unchecked_bypass, short_answer, no_bytes_at_all, too_long,
    reordered, overlapping, body_unlike_header, oversized_frame, oversized_header, no_frame,
    no_protobuf, wrong_kind, two_versions, no_version, hang_after_the_header, close_in_mid_body,
    close_at_once, silent, overloaded, error_in_mid_answer, goes_on_after_the_end,
]  # fmt: skip


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


# -- small reads of a version that the client knows: their answer is expected to the byte


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
        client = knowing_client(pair, silence_ms=50)
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


def test_a_connection_is_used_again_after_a_good_answer_and_a_clean_error(pair: Pair) -> None:
    def not_found(session: Session, request: ReadRequest) -> None:
        message = codec.pack_error_head(ObjectNotFound("no such thing"))
        session.send(encode(Kind.READ_ANSWER, message.SerializeToString()))

    pair.first.script = [honest, honest, not_found, honest]
    client = pair.client(version_cache_count=0)
    for _ in range(2):
        assert client.read(URI) == DATA
    with pytest.raises(ObjectNotFound, match="no such thing"):
        client.read(URI)
    assert client.read(URI) == DATA
    assert pair.first.hellos + pair.second.hellos <= 2


def test_a_stale_idle_connection_is_replaced_without_anybody_noticing(pair: Pair) -> None:
    client = pair.client()
    assert client.read(URI) == DATA
    pair.first.hang_up()
    assert client.read(URI) == DATA
    pair.first.script = [close_at_once]  # on an idle connection, before the first byte
    assert client.read(URI) == DATA
    assert pair.second.requests == []


def test_pending_frames_keep_a_slow_answer_alive(pair: Pair) -> None:
    def slow(session: Session, request: ReadRequest) -> None:
        for _ in range(5):
            threading.Event().wait(0.1)  # the node's own slowness
            session.send(answer(ReadHead(pending=True), b""))
        honest(session, request)

    pair.first.behave = slow
    assert pair.client(silence_ms=300).read(URI) == DATA
    assert pair.second.requests == []


def test_a_silent_node_is_ejected_and_costs_its_silence_once(pair: Pair) -> None:
    pair.first.behave = silent
    client = pair.client(silence_ms=300, eject_ms=30_000)
    assert client.read(URI) == DATA
    assert client.read(URI) == DATA
    assert len(pair.first.requests) == 1


@pytest.mark.parametrize("backlog_is_full", [False, True])
def test_a_node_that_never_accepts_is_passed_over(pair: Pair, backlog_is_full: bool) -> None:
    with contextlib.ExitStack() as exits:
        hole = exits.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        address = f"127.0.0.1:{hole.getsockname()[1]}"
        for _ in range(3 if backlog_is_full else 0):
            filler = exits.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        table = MemberTable([Member(pair.first.node_id, address), pair.second.member])
        pair.second.join(table)
        client = CacheClient(f"{address},{pair.second.address}", hello_timeout_ms=150)
        exits.callback(client.close)
        for _ in range(5):
            assert client.read(URI) == DATA


def test_a_token_that_no_node_takes_is_refused_by_name(pair: Pair) -> None:
    error = codec.error_message(Unauthenticated("n0: a wrong token"))
    pair.first.error = pair.second.error = error
    with pytest.raises(Unauthenticated, match="a wrong token"):
        pair.client().read(URI)
    with pytest.raises(Unauthenticated, match="a wrong token"):
        pair.client().ring()


def test_a_token_that_one_node_takes_will_do(pair: Pair) -> None:
    pair.first.error = codec.error_message(Unauthenticated("n0: a wrong token"))
    for _ in range(8):  # whichever is asked first
        assert pair.client().read(URI) == DATA


def test_a_welcome_with_another_error_is_passed_over(pair: Pair) -> None:
    pair.first.error = codec.error_message(Overloaded("no more connections"))
    assert pair.client().read(URI) == DATA


def test_another_epoch_in_an_answer_brings_the_new_member_table(pair: Pair) -> None:
    client = pair.client(refresh_ms=1)
    assert client.read(URI) == DATA
    assert client.ring().epoch == pair.first.epoch
    threading.Event().wait(0.005)  # past refresh_ms, the least time between two refreshes
    third = MemberTable([pair.first.member, pair.second.member, Member("n2", "127.0.0.1:1")])
    pair.first.join(third)
    pair.second.join(third)
    assert client.read(URI) == DATA
    assert client.ring().epoch == third.epoch
    assert client.read(URI) == DATA


@pytest.mark.slow  # botocore tries the origin several times
def test_with_no_node_and_no_origin_the_error_names_both(pair: Pair) -> None:
    pair.first.stop()
    pair.second.stop()
    with pytest.raises(CacheError, match=r"cannot be reached.*origin"):
        pair.client().read(URI)


def test_ring_names_the_endpoint_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    with CacheClient(address) as client, pytest.raises(CacheError, match=address):
        client.ring()


def test_a_peer_that_is_no_node_is_a_protocol_error(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(100)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with CacheClient(address) as client, pytest.raises(ProtocolError, match="something else"):
            client.ring()
        thread.join()


def test_making_a_client_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    CacheClient("127.0.0.1:1", origin={"endpoint_url": "http://127.0.0.1:1"})
    CacheClient("grpc://127.0.0.1:1")
    assert threading.active_count() == before
    monkeypatch.setenv("CACHESVC_ENDPOINT", "h:1,h:2")
    monkeypatch.setenv("CACHESVC_TOKEN", "secret")
    client = CacheClient()
    assert client.config.endpoints == ("h:1", "h:2")
    assert client.config.token == "secret"
    assert "secret" not in repr(client.config)
    monkeypatch.delenv("CACHESVC_ENDPOINT")
    for endpoint, problem in [
        (None, "CACHESVC_ENDPOINT"),
        ("unix://run/x", "absolute path"),
        ("unix:///" + "x" * 107, "108 bytes, 107 is the most"),
        ("grpc://unix:///run/x", "grpc://"),
        ("h:x", "port"),
        ("http://h:1", "grpc://"),
    ]:
        with pytest.raises(ValueError, match=problem):
            CacheClient(endpoint)
    with pytest.raises(TypeError, match="'silence_ms'"):
        CacheClient("h:1", silence=3)
    with pytest.raises(ValueError, match="endpoint"):
        CacheClient("h:1", origin={"endpoint": "x"})


# -- without any node: the origin itself

BIG = random.Random(12).randbytes(18 << 20)


def direct(origin: DevOrigin) -> CacheClient:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return CacheClient("127.0.0.1:1", origin={"endpoint_url": origin.url, **keys})


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevOrigin]:
    with DevOrigin(tmp_path_factory.mktemp("origin")) as made:
        made.put("b", "k", DATA)
        made.put("b", "big", BIG)
        yield made
        made.faults = []


@pytest.mark.slow  # botocore waits before it tries again
@pytest.mark.parametrize("kind", sorted(KINDS - {"stall", "slow_first_byte", "no_etag"}))
def test_an_origin_that_lies_once_is_asked_again(origin: DevOrigin, kind: str) -> None:
    method = "*" if kind in ("etag_change", "weak_etag") else "GET"
    origin.faults = [Fault(kind, method, count=1)]
    with direct(origin) as client:
        found = client.read(URI, 1000, 200_000)
        assert found == DATA[1000:200_000] or kind == "etag_change"  # a version of its own
        origin.faults = [Fault(kind, method, count=1)]
        assert client.read("s3://b/big", 5) == BIG[5:]
    origin.faults = []


@pytest.mark.parametrize("kind", ["no_etag", "weak_etag"])
def test_an_origin_without_strong_etags_is_read_in_single_gets(
    origin: DevOrigin, kind: str
) -> None:
    origin.faults = [Fault(kind, "*")]
    origin.clear_log()
    with direct(origin) as client:
        assert client.read("s3://b/big", 5) == BIG[5:]
        assert client.read_ranges("s3://b/big", [(9, 12), (12 << 20, (12 << 20) + 5)]) == [
            BIG[9:12],
            BIG[12 << 20 : (12 << 20) + 5],
        ]
    origin.faults = []
    assert sum(one.method == "GET" for one in origin.requests) == 2


def test_odd_keys_reach_the_origin_as_they_are(origin: DevOrigin) -> None:
    keys = ["..", "a//b", "../escape", "a/../../x", "100%/%2F", "grüße/日本", "?q=1#f", "a/", " +"]
    with direct(origin) as client:
        for key in keys:
            origin.put("b", key, key.encode())
            assert client.read(f"s3://b/{key}") == key.encode()


def test_without_credentials_the_error_says_how_to_give_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    client = CacheClient("127.0.0.1:1", origin={"endpoint_url": "http://127.0.0.1:1"})
    with client, pytest.raises(CacheError, match=r"cannot be reached.*aws_access_key_id"):
        client.read(URI)


def test_without_botocore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    said = r"cannot be reached.*pip install cachesvc\[s3\]"
    with CacheClient("127.0.0.1:1") as client, pytest.raises(CacheError, match=said):
        client.read(URI)
