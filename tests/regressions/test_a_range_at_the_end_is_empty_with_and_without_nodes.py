"""A range that begins at the end of a large object is empty, whether nodes or the origin answer.

Story: beyond block 0 the client asks a node for the version only, and, with no node up, the origin
for the bytes at once; S3 answers 416 to an empty range, and the caller got a RangeError.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cachesvc_client import CacheClient, RangeError

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster

SIZE = (8 << 20) + 10
URI = "s3://b/large"


def check(client: CacheClient) -> None:
    assert client.read(URI, SIZE, SIZE + 5) == b""
    assert client.read(URI, SIZE - 3, SIZE + 5) == bytes(3)
    with pytest.raises(RangeError):
        client.read(URI, SIZE + 1, SIZE + 5)


def test_a_range_at_the_end_is_empty_with_and_without_nodes(tmp_path: Path) -> None:
    root = tmp_path / "origin"
    root.mkdir()
    with DevOrigin(root) as origin:
        origin.put("b", "large", bytes(SIZE))
        with Cluster(tmp_path, origin.url, count=1) as cluster, cluster.client() as client:
            check(client)
        with cluster.client() as client:
            check(client)
