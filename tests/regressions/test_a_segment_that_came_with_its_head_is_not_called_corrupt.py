"""Bug: a segment that had come whole with the beginning of its answer was never held to its
checksums, and so refused as corrupt: one request more, for nothing.
"""

from __future__ import annotations

import socket

from cachesvc_client.receipt import Check

from cachesvc.core.format import checksum
from cachesvc.core.types import Source
from cachesvc.wire.codec import SegmentHead
from tests.greeted import greeted
from tests.support import pattern


def test_a_segment_that_came_with_its_head_is_right() -> None:
    data = pattern(5000)
    ours, theirs = socket.socketpair()
    connection = greeted(ours)
    with ours, theirs:
        connection.unread(memoryview(data + b"next"))
        view = memoryview(bytearray(len(data)))
        check = Check(SegmentHead(0, len(data), Source.DISK, checksum(data)), view, 65536)
        connection.fill(view, 0, check.landed)
        assert view == data
        assert check.right
