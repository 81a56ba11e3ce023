"""What is posted to a lane thread after its end is dropped without a word.

Story: a node that was stopped while it filled threw ValueError (a negative descriptor) from the
callbacks of its requests, one traceback for each, on its way out.
"""

from __future__ import annotations

import socket

from cachesvc.core.errors import CacheError
from cachesvc.lane_connection import Connection
from cachesvc.lane_thread import LaneThread
from cachesvc.pins import Pin
from cachesvc.wire.frame import Kind


class Nobody:
    """A handler that is never called."""

    def deal(self, sock: socket.socket) -> None:
        raise AssertionError

    def serve(self, connection: Connection, kind: Kind, header: bytes) -> None:
        raise AssertionError

    def ready(self, request: bytes) -> bytes | None:
        raise AssertionError

    def sent(self) -> None:
        raise AssertionError

    def at_once(self, connection: Connection, request: bytes) -> bool:
        raise AssertionError

    def awaits_quiet(self) -> bool:
        return False

    def quiet(self) -> None:
        pass

    def reply(self, connection: Connection, answer: bytes | memoryview) -> None:
        raise AssertionError

    def refuse(self, connection: Connection, error: CacheError) -> None:
        raise AssertionError

    def broken(self, pin: Pin, error: OSError) -> None:
        raise AssertionError

    def closed(self, connection: Connection) -> None:
        raise AssertionError


def test_work_for_a_lane_thread_that_has_ended_is_no_error() -> None:
    thread = LaneThread(Nobody(), 0)
    thread.start()
    thread.stop()
    done: list[int] = []
    thread.post(lambda: done.append(1))
    assert not thread.is_alive()
    assert done == []
