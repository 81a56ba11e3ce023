"""A connection goes on however many requests it has carried.

Story: what had been received was counted, and taken off only when a request was answered on the
spot. After 256 KiB of requests that were not (misses, Stats, large hits), the node stopped
listening to the connection, and its client took the node for dead.
"""

from __future__ import annotations

import socket
import threading

from cachesvc.core.errors import CacheError
from cachesvc.lane_connection import Connection
from cachesvc.lane_thread import MAX_UNREAD_BYTES, LaneThread
from cachesvc.pins import Pin
from cachesvc.wire.frame import Kind, encode

HEADER = b"x" * 1000


class Later:
    """Answers each request as a node answers a miss: from another thread, after `serve`."""

    def __init__(self) -> None:
        self.served = threading.Semaphore(0)

    def serve(self, connection: Connection, _kind: Kind, _header: bytes) -> None:
        connection.greeted = True

        def answer() -> None:
            connection.busy = False
            if connection.decoder.held:
                connection.thread.post(lambda: connection.thread.advance(connection))
            self.served.release()

        connection.thread.post(
            lambda: connection.thread.send(connection, [memoryview(b"!")], lambda _: answer())
        )

    def deal(self, sock: socket.socket) -> None:
        raise AssertionError

    def ready(self, request: bytes) -> bytes | None:
        return None

    def sent(self) -> None:
        raise AssertionError("nothing is ready")

    def at_once(self, connection: Connection, request: bytes) -> bool:
        return False

    def awaits_quiet(self) -> bool:
        return False

    def quiet(self) -> None:
        pass

    def reply(self, connection: Connection, answer: bytes | memoryview) -> None:
        raise AssertionError

    def refuse(self, connection: Connection, error: CacheError) -> None:
        raise AssertionError(error)

    def broken(self, pin: Pin, error: OSError) -> None:
        raise AssertionError(error)

    def closed(self, connection: Connection) -> None:
        pass


def test_a_connection_carries_any_number_of_requests() -> None:
    handler = Later()
    thread = LaneThread(handler, 0)
    thread.start()
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    client.settimeout(10)
    server, _ = listener.accept()

    def adopt() -> None:
        thread.adopt(server)

    thread.post(adopt)
    frame = encode(Kind.STAT, HEADER)
    try:
        for _ in range(3 * MAX_UNREAD_BYTES // len(frame)):
            client.sendall(frame)
            assert client.recv(1) == b"!"
            assert handler.served.acquire(timeout=10)
    finally:
        client.close()
        listener.close()
        thread.stop()
