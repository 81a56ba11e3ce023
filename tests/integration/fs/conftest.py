"""Three nodes in front of a development origin, and a file system of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.support import pattern

if TYPE_CHECKING:
    from cachesvc_client.fs import CacheFileSystem

DATA = pattern(20_000_003, 5)
BUCKET = "data"


@dataclass
class Place:
    """A cluster, its origin, and file systems of it."""

    cluster: Cluster
    origin: DevOrigin

    @property
    def options(self) -> dict[str, Any]:
        return {"endpoint": self.cluster.endpoint, "origin": {"endpoint_url": self.origin.url}}

    def fs(self, **options: Any) -> CacheFileSystem:
        from cachesvc_client.fs import CacheFileSystem

        return CacheFileSystem(**self.options, skip_instance_cache=True, **options)

    def origin_reads(self) -> int:
        """How many GETs of objects the origin has seen."""
        return sum(1 for one in self.origin.requests if one.operation == "GetObject")

    def node_reads(self) -> int:
        return int(sum(node.metric('requests_total{op="read"') for node in self.cluster.nodes))


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    work = tmp_path_factory.mktemp("fs")
    (work / "origin").mkdir()
    with DevOrigin(work / "origin") as origin:
        for key in (
            "big",
            "dir/a.txt",
            "dir/sub/b.txt",
            "dir/sub/deep/c.txt",
            "dir2/d.txt",
            "dirt",
        ):
            origin.put(BUCKET, key, DATA if key == "big" else f"content of {key}".encode())
        with Cluster(work, origin.url) as cluster:
            yield Place(cluster, origin)


@pytest.fixture
def fs(place: Place) -> Iterator[CacheFileSystem]:
    fs = place.fs()
    yield fs
    fs.client.close()
