"""Bug: a client asked a member for its table at its Unix socket alone, also when that was gone and
reads went over TCP: it kept the old ring for ever, where no other member told of the new one.
"""

from __future__ import annotations

from pathlib import Path

from cachesvc_client import CacheClient

from cachesvc.core.ring import Member
from tests.integration.inprocess import running
from tests.integration.lane.sample import DATA
from tests.support import NAME

URI = str(NAME)


def test_the_new_epoch_is_learned(tmp_path: Path) -> None:
    socket_path = tmp_path / "node.sock"
    with (
        running(tmp_path / "data", unix=socket_path) as node,
        CacheClient(f"unix://{socket_path}", refresh_ms=1) as client,
    ):
        node.put(DATA)
        assert client.read(URI, 0, 100) == DATA[:100]
        assert client._engine is not None
        socket_path.unlink()
        client._engine._transport._drop_idle(f"unix://{socket_path}")  # type: ignore[union-attr]
        node.cluster.learn(Member("other", "127.0.0.1:2", "127.0.0.1:3", 1))
        assert client._engine.router.epoch != node.cluster.epoch
        assert client.read(URI, 100, 200) == DATA[100:200]
        assert client._engine.router.epoch == node.cluster.epoch
