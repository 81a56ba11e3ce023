"""Many clients that ask for an object and then read nothing of it."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import GEOMETRY, Gate

STALLED_COUNT = 200  # three descriptors each in this process, of perhaps 1,024
MAX_EACH_BYTES = 128 << 10
REQUEST = b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n"


def _stalled(gate: Gate) -> socket.socket:
    """A connection whose client takes the status line of its answer and no more."""
    parts = urlsplit(gate.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect((parts.hostname, parts.port))
    connection.sendall(REQUEST)
    return connection


@pytest.mark.parametrize("warm", [False, True])
def test_stalled_readers_cost_little_memory_and_hold_nobody_up(
    gate: Gate, origin: DevOrigin, warm: bool
) -> None:
    origin.put("bucket", "other", b"other")
    if warm:
        gate.ask()
    thread_count = threading.active_count()
    with ExitStack() as connections:
        tracemalloc.start()
        connections.callback(tracemalloc.stop)
        stalled = [connections.enter_context(_stalled(gate)) for _ in range(STALLED_COUNT)]
        for connection in stalled:
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert gate.ask()[2] == DATA
        assert gate.ask("/bucket/other")[2] == b"other"
        read_here_bytes = 3 * len(DATA)  # the whole answer of above, received and joined
        peak_bytes = tracemalloc.get_traced_memory()[1]
        assert peak_bytes < STALLED_COUNT * MAX_EACH_BYTES + read_here_bytes
        assert gate.coalescer.buffer_bytes <= len(DATA) + GEOMETRY.block_bytes
        assert threading.active_count() < thread_count + STALLED_COUNT // 4
        received = bytearray()
        while len(received.partition(b"\r\n\r\n")[2]) < len(DATA):
            received += stalled[-1].recv(1 << 20)
        assert received.partition(b"\r\n\r\n")[2] == DATA
    assert gate.ask()[2] == DATA
