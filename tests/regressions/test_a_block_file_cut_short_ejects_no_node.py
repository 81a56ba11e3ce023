"""A block file that is cut while its node runs costs one more request, and not the node.

Story: the node hung up in mid-answer, the client took that for a node that is down, left it alone
for 5 s, and read 160 of 178 MB from the origin though nearly all blocks were whole.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster

MIB = 1 << 20


@pytest.mark.slow
def test_a_block_file_cut_short_ejects_no_node(tmp_path: Path) -> None:
    content = os.urandom(MIB) * 20
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("b", "k", content)
        with Cluster(tmp_path, origin.url, count=1) as cluster, cluster.client() as client:
            assert client.read("s3://b/k") == content
            for file in cluster.nodes[0].data.glob("blocks/*/*.block"):
                os.truncate(file, 3 * MIB)
            origin.clear_log()
            assert client.read("s3://b/k") == content
            assert "direct" not in client.sources()
            fetched = sum(one.body_bytes for one in origin.requests)
            assert len(content) <= fetched <= len(content) + MIB
            origin.clear_log()
            assert client.read("s3://b/k") == content
            assert origin.requests == []
