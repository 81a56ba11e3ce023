"""Bug: a node took any capacity in silence, also one that its disk will never have."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster

SAID = "capacity is more than the disk has"


@pytest.mark.parametrize(("capacity", "warned"), [("64MiB", False), ("900000TiB", True)])
def test_a_node_says_so_when_it_starts(tmp_path: Path, capacity: str, warned: bool) -> None:
    (tmp_path / "origin").mkdir()
    with (
        DevOrigin(tmp_path / "origin") as origin,
        Cluster(tmp_path, origin.url, 1, ("--capacity", capacity)) as cluster,
    ):
        (node,) = cluster.nodes
        assert (SAID in node.log()) == warned
