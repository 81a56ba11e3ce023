"""Bug: what has no checksums, because it is not cached, came by way of a buffer that a signal's
handler on the same thread receives into as well: wrong bytes, which nobody could find out.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from cachesvc_client import CacheClient, bounce

from tests.integration.inprocess import running
from tests.support import pattern

DATA = pattern(3 << 20)


def test_only_what_is_checked_where_it_arrives_comes_by_the_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounce, "_slow_here", lambda: True)
    room, used = bounce.room, list[int]()

    def counted(view: memoryview) -> memoryview:
        used.append(len(view))
        return room(view)

    monkeypatch.setattr(bounce, "room", counted)
    with running(tmp_path) as node, CacheClient(f"127.0.0.1:{node.lane_port}") as client:
        for etag, from_file in (('W/"weak"', False), ('"strong"', False), ('"strong"', True)):
            node.put(DATA, etag=etag)
            client.invalidate("s3://bucket/key")
            view = memoryview(mmap.mmap(-1, len(DATA) + 4096))[16 : 16 + len(DATA)]
            assert client.readinto("s3://bucket/key", view) == len(DATA)
            assert view == DATA
            assert bool(used) == from_file, "what is being filled comes from memory"
