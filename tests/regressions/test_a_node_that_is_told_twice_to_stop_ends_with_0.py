"""Bug: a second SIGTERM that came when a node had stopped, but was still there, ended it by the
signal, and whoever watches it saw a failure.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster


@pytest.mark.slow
def test_however_often_it_is_told_it_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as origin, Cluster(tmp_path, origin.url, 1) as cluster:
        (node,) = cluster.nodes
        assert node.child is not None
        while node.child.poll() is None:
            node.child.send_signal(signal.SIGTERM)
        assert node.child.wait() == 0
