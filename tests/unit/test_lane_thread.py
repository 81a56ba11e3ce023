"""A lane thread goes on, whatever breaks on it."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from cachesvc.core.errors import CacheError
from cachesvc.lane_connection import Connection
from cachesvc.lane_thread import HELLO_S, QUIET_S, LaneThread
from cachesvc.pins import Pin
from cachesvc.wire.frame import Kind, encode
from tests.support import PATIENCE_S, Clock, until


class BrokenHandler:
    """Answers every request with its header; breaks when it hears that a client is gone."""

    def __init__(self) -> None:
        self.closed_count = 0
        self.quiet_count = 0
        self.awaiting = False

    def deal(self, sock: socket.socket) -> None:
        raise AssertionError("nobody listens")

    def serve(self, connection: Connection, kind: Kind, header: bytes) -> None:
        connection.thread.send(connection, [memoryview(header)], lambda _: None)

    def ready(self, request: bytes) -> bytes | None:
        return None

    def sent(self) -> None:
        raise AssertionError("nothing is ready")

    def at_once(self, connection: Connection, request: bytes) -> bool:
        return False

    def reply(self, connection: Connection, answer: bytes | memoryview) -> None:
        raise AssertionError("nothing is answered at once")

    def refuse(self, connection: Connection, error: CacheError) -> None:
        raise AssertionError(f"nothing was wrong: {error}")

    def awaits_quiet(self) -> bool:
        return self.awaiting

    def quiet(self) -> None:
        self.quiet_count += 1

    def broken(self, pin: Pin, error: OSError) -> None:
        raise AssertionError(f"no file was sent: {error}")

    def closed(self, connection: Connection) -> None:
        self.closed_count += 1
        raise ZeroDivisionError("a defect of the handler")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("lane_thread", "lane_connection"):
        monkeypatch.setattr(f"cachesvc.{module}.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def lane(clock: Clock) -> Iterator[tuple[LaneThread, BrokenHandler]]:
    handler = BrokenHandler()
    thread = LaneThread(handler, 0)
    thread.start()
    yield thread, handler
    thread.stop()


def test_a_sweep_that_breaks_ends_no_lane_thread(
    lane: tuple[LaneThread, BrokenHandler], clock: Clock
) -> None:
    """A silent client is hung up on, and the handler breaks at that; the next one is served."""
    thread, handler = lane
    silent, theirs = socket.socketpair()
    with closing(silent):
        silent.settimeout(PATIENCE_S)
        thread.post(lambda: thread.adopt(theirs))  # type: ignore[arg-type]
        thread.post(lambda: setattr(clock, "now", clock.now + HELLO_S + 1))
        assert silent.recv(1) == b""
    until(lambda: handler.closed_count == 1, "the handler broke")
    spoken, theirs_too = socket.socketpair()
    with closing(spoken):
        spoken.settimeout(PATIENCE_S)
        thread.post(lambda: thread.adopt(theirs_too))  # type: ignore[arg-type]
        spoken.sendall(encode(Kind.HELLO, b"still here?"))
        assert spoken.recv(100) == b"still here?"


def test_a_thread_says_each_time_that_all_is_quiet_if_that_is_awaited(
    lane: tuple[LaneThread, BrokenHandler],
) -> None:
    thread, handler = lane
    done = list[int]()
    handler.awaiting = True
    for number in range(3):
        before = handler.quiet_count
        thread.post(lambda: done.append(number))  # noqa: B023
        until(lambda: handler.quiet_count > before, f"all was quiet after {number}")  # noqa: B023
        assert done == list(range(number + 1))


def test_a_thread_that_owes_nothing_sleeps_until_something_comes() -> None:
    class Polled:
        """What comes once, and how long the thread would have waited each time."""

        def __init__(self, thread: LaneThread) -> None:
            self.thread, self.limits_s = thread, list[float]()

        def poll(self, limit_s: float) -> list[tuple[int, int]]:
            self.limits_s.append(limit_s)
            if len(self.limits_s) == 3:
                self.thread._stopping = True
            return [(-1, select.EPOLLIN)] if len(self.limits_s) == 1 else []

        def close(self) -> None:
            pass

    for awaiting, limits_s in ((False, [1.0, 1.0, 1.0]), (True, [1.0, QUIET_S, 1.0])):
        handler = BrokenHandler()
        handler.awaiting = awaiting
        thread = LaneThread(handler, 0)
        thread._epoll.close()
        thread._epoll = polled = Polled(thread)  # type: ignore[assignment]
        thread.run()
        assert polled.limits_s == limits_s
        assert handler.quiet_count == int(awaiting)


def test_a_client_that_cannot_be_watched_is_let_go() -> None:
    """There is a limit to what a user may watch (max_user_watches)."""
    thread = LaneThread(BrokenHandler(), 0)

    class Full:
        def register(self, *_: object) -> None:
            raise OSError(28, "No space left on device")

    thread._epoll.close()
    thread._epoll = Full()  # type: ignore[assignment]
    ours, theirs = socket.socketpair()
    with closing(ours), pytest.raises(OSError, match="No space"):
        thread.adopt(theirs)
    assert theirs.fileno() == -1
    assert thread.connection_count == 0
    os.close(thread._wake_fd)
