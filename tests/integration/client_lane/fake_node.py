"""A node that a test can make misbehave in every way that a socket allows.

Story: `FakeNode` speaks frames on threads, a `Session` for each connection; a test gives it the
behaviour for the next read. `Pair` puts an honest one behind it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from cachesvc_client import CacheClient

from cachesvc.core.errors import CacheError
from cachesvc.core.request import ReadRequest
from cachesvc.core.ring import Member, MemberTable, Ring
from cachesvc.core.types import clamp
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import PROTOCOL_VERSION, Kind, RequestDecoder, encode
from cachesvc.wire.v1 import cache_pb2, cluster_pb2
from tests.integration.client_lane.sample import DATA, GEOMETRY, NAME, VERSION, answer, segment

Behaviour = Callable[["Session", ReadRequest], None]


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
        elif kind is Kind.FORGET:
            node.forget_count += 1
            if node.forget_count <= node.cut_forget_count:
                self.sock.shutdown(socket.SHUT_RDWR)
            else:
                self.send(encode(Kind.FORGET_ANSWER, b""))
        elif kind is Kind.STAT:
            node.stat_count += 1
            node.let_stats.wait()
            message = codec.pack_stat_answer(VERSION, 5.0, node.epoch)
            self.send(encode(Kind.STAT_ANSWER, message.SerializeToString()))
        else:
            request = codec.unpack_read(codec.parse(cache_pb2.ReadRequest, header))
            node.requests.append(request)
            behave = node.script.pop(0) if node.script else node.behave
            behave(self, request)


class FakeNode:
    """A node on a thread, honest unless told otherwise. `script`: for the next reads, in order.

    let_stats: while it is clear, Stats wait. cut_forget_count: how many Forgets are hung up on,
    the first ones.
    """

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.table = MemberTable()
        self.epoch = 0
        self.error: cluster_pb2.Error | None = None
        self.behave: Behaviour = honest
        self.script: list[Behaviour] = []
        self.requests: list[ReadRequest] = []
        self.hellos = 0
        self.stat_count = 0
        self.let_stats = threading.Event()
        self.let_stats.set()
        self.forget_count = 0
        self.cut_forget_count = 0
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
        self.let_stats.set()
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
