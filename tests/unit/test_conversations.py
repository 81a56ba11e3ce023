"""A lane thread with one client, who asks all the time, waits for it alone: and misses nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Event, Thread
from types import SimpleNamespace

import pytest

from cachesvc.core.errors import CacheError
from cachesvc.lane_connection import Connection
from cachesvc.lane_thread import PAUSE_S, LaneThread
from cachesvc.pins import Pin
from cachesvc.wire.frame import Kind, encode
from tests.support import PATIENCE_S, Clock, until

LARGE_BYTES = 32 << 20  # more than a socket takes


class Handler:
    """Answers what begins with `!` at once, all else in its turn, with what was asked. waited:
    whether the thread waited for the client alone when a request came.
    """

    def __init__(self) -> None:
        self.thread = LaneThread(self, 0)
        self.waited = list[bool]()
        self.sent_count = 0
        self.clock = Clock()
        self.gone = list[Connection]()

    def deal(self, sock: socket.socket) -> None:
        self.thread.adopt(sock).greeted = True

    def ready(self, request: bytes) -> bytes | None:
        self.waited.append(any(one.blocking for one in self.thread._connections.values()))
        if request.startswith(b"!large"):
            return bytes(LARGE_BYTES)
        if request.startswith(b"!defect"):
            raise ZeroDivisionError("a defect of the handler")
        return request if request.startswith(b"!") else None

    def sent(self) -> None:
        self.sent_count += 1

    def at_once(self, connection: Connection, request: bytes) -> bool:
        return False

    def serve(self, connection: Connection, kind: Kind, header: bytes) -> None:
        self.reply(connection, header)

    def reply(self, connection: Connection, answer: bytes | memoryview) -> None:
        assert not connection.blocking, "who sends without waiting may not be made to wait"
        free: Callable[[object], None] = lambda _: setattr(connection, "busy", False)  # noqa: E731
        self.thread.send(connection, [memoryview(answer)], free)

    def refuse(self, connection: Connection, error: CacheError) -> None:
        raise AssertionError(f"nothing was wrong: {error}")

    def awaits_quiet(self) -> bool:
        return False

    def quiet(self) -> None:
        raise AssertionError("nothing was awaited")

    def broken(self, pin: Pin, error: OSError) -> None:
        raise AssertionError(f"no file was sent: {error}")

    def closed(self, connection: Connection) -> None:
        self.gone.append(connection)

    def done(self, work: Callable[[], None]) -> None:
        """Post the work and wait until it was done."""
        done = Event()
        self.thread.post(work)
        self.thread.post(done.set)
        assert done.wait(PATIENCE_S), "what was posted is done"

    @contextmanager
    def client(self) -> Iterator[socket.socket]:
        """Somebody who has said Hello, over TCP, whose buffers have an end."""
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        with closing(ours):
            ours.settimeout(PATIENCE_S)
            self.done(lambda: setattr(self.thread.adopt(theirs), "greeted", True))
            yield ours


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handler]:
    """On a thread whose clock stands still: so that every client asks all the time."""
    handler = Handler()
    for module in "lane_thread", "lane_connection":
        clock = SimpleNamespace(monotonic=handler.clock)
        monkeypatch.setattr(f"cachesvc.{module}.time", clock)
    handler.thread.start()
    yield handler
    handler.thread.stop()


def asked(client: socket.socket, request: bytes, answer: bytes | None = None) -> None:
    wanted = request if answer is None else answer
    client.sendall(request)
    came = bytearray()
    while len(came) < len(wanted):
        came += (data := client.recv(1 << 20))
        assert data, "it hung up"
    assert came == wanted


def talking(handler: Handler, client: socket.socket) -> None:
    """Ask until the thread waits for this client alone."""
    for _ in range(1000):
        asked(client, b"!small")
        if handler.waited[-1]:
            return
    raise AssertionError("this client alone is never waited for")


@contextmanager
def talker(handler: Handler, client: socket.socket) -> Iterator[None]:
    """Somebody asks without a pause, so that no wait of the thread ever ends by itself."""
    enough = Event()

    def ask() -> None:
        while not enough.is_set():
            asked(client, b"!again and again")

    talking(handler, client)
    thread = Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_who_asks_all_the_time_is_waited_for_alone(handler: Handler) -> None:
    with handler.client() as client:
        talking(handler, client)
        before = len(handler.waited)
        for number in range(100):
            asked(client, b"!%d" % number)
        assert len(handler.waited) == before + 100
        assert any(handler.waited[before:])
        until(lambda: handler.sent_count == len(handler.waited), "each was told of")


def test_what_is_posted_meanwhile_is_done(handler: Handler) -> None:
    with handler.client() as client, talker(handler, client):
        for _ in range(20):
            handler.done(lambda: None)


def test_who_connects_meanwhile_is_let_in_in_time(
    handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachesvc.lane_thread.time", time)
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
        handler.client() as client,
    ):
        listener.setblocking(False)
        handler.done(lambda: handler.thread.listen(listener))
        with (
            talker(handler, client),
            closing(socket.create_connection(listener.getsockname())) as newcomer,
        ):
            newcomer.settimeout(PATIENCE_S)
            asked(newcomer, b"!new here")
        handler.done(lambda: handler.thread.unlisten(listener))


def test_who_pauses_is_waited_for_as_everybody_is(handler: Handler) -> None:
    with handler.client() as client:
        talking(handler, client)
        asked(client, b"!small")
        for _ in range(10):
            handler.done(lambda: None)
            handler.clock.now += 2 * PAUSE_S
            asked(client, b"!small")
            assert not handler.waited[-1]


def test_who_comes_meanwhile_is_served_and_nobody_is_waited_for_alone_then(
    handler: Handler,
) -> None:
    with handler.client() as first:
        talking(handler, first)
        with handler.client() as second:
            for _ in range(10):
                for client in (first, first, second, second):
                    asked(client, b"!small")
                    assert not handler.waited[-1]
        until(lambda: len(handler.gone) == 1, "the second one has left")
        talking(handler, first)


def test_a_request_of_another_kind_has_its_turn(handler: Handler) -> None:
    with handler.client() as client:
        for size in (3, 470, 5_000, 40_000):
            talking(handler, client)
            header = bytes(range(250)) * (size // 250 + 1)
            asked(client, encode(Kind.READ, header), header)


@pytest.mark.parametrize("size", [1, 478, 479, 480, 2_000, 16_000])
def test_a_request_is_looked_at_whole_whatever_its_size(handler: Handler, size: int) -> None:
    with handler.client() as client:
        talking(handler, client)
        for _ in range(3):
            asked(client, b"!".ljust(size, b"x"))


def test_half_a_request_waits_for_the_other_half(handler: Handler) -> None:
    frame = encode(Kind.READ, b"in two pieces")
    with handler.client() as client:
        talking(handler, client)
        before = len(handler.waited)
        client.sendall(frame[:9])
        until(lambda: len(handler.waited) > before, "the first half has come")
        handler.done(lambda: None)
        asked(client, frame[9:], b"in two pieces")


def test_who_takes_nothing_holds_no_thread_and_gets_all_in_the_end(handler: Handler) -> None:
    with handler.client() as stalled:
        talking(handler, stalled)
        before = len(handler.waited)
        stalled.sendall(b"!large")
        until(lambda: len(handler.waited) > before, "it was asked for")
        with handler.client() as other:
            asked(other, b"!other")
            handler.done(handler.thread.close_idle)
            assert other.recv(1) == b"", "who is not being answered is hung up on"
            asked(stalled, b"", bytes(LARGE_BYTES))
            asked(stalled, b"!once more")
            assert handler.sent_count == len(handler.waited)


def test_who_hangs_up_is_let_go(handler: Handler) -> None:
    with handler.client() as client:
        talking(handler, client)
    until(lambda: len(handler.gone) == 1, "it is gone")
    assert handler.thread.connection_count == 0


def test_a_defect_ends_its_connection_only(handler: Handler) -> None:
    with handler.client() as client:
        talking(handler, client)
        client.sendall(b"!defect")
        assert client.recv(1) == b""
    with handler.client() as client:
        talking(handler, client)


def test_a_thread_that_waits_for_one_client_ends_when_it_is_told_to(handler: Handler) -> None:
    with handler.client() as client:
        talking(handler, client)
        handler.thread.stop()
        assert client.recv(1) == b""
