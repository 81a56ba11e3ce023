"""Three nodes, one of them with a gateway, in front of a development origin; and the readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from cachesvc.devorigin import DevOrigin
from cachesvc.devorigin.log import LoggedRequest
from cachesvc.devorigin.ports import free_ports
from tests.integration.cluster import Cluster
from tests.integration.loaders.loader import BUCKET, Where
from tests.integration.loaders.workers import Workers
from tests.support import until


@dataclass
class Place:
    """See above. cached, direct: where loaders read through the cache, and without it."""

    cluster: Cluster
    origin: DevOrigin
    workers: Workers
    cached: Where
    direct: Where

    def put(self, folder: str, objects: Mapping[str, bytes]) -> None:
        for key, data in objects.items():
            self.origin.put(BUCKET, f"{folder}/{key}", data)

    def gets(self, folder: str) -> list[LoggedRequest]:
        """The GETs of objects of a folder that the origin has seen; all fills are over."""
        until(lambda: not any(node.metric("flights") for node in self.cluster.nodes), "it is quiet")
        return [
            one
            for one in self.origin.requests
            if one.operation == "GetObject" and one.key.startswith(f"{folder}/")
        ]

    def fetched_bytes(self) -> list[float]:
        """What each node has received from the origin."""
        return [node.metric("origin_bytes_total") for node in self.cluster.nodes]

    def asked(self) -> float:
        """How many requests the nodes have had, on their lanes and at the gateway."""
        names = ("requests_total", "s3_requests_total")
        return sum(node.metric(name) for node in self.cluster.nodes for name in names)


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    work = tmp_path_factory.mktemp("loaders")
    (work / "origin").mkdir()
    with DevOrigin(work / "origin") as origin:
        cluster = Cluster(work, origin.url, options=("--capacity", "1GiB", "--revalidate", "1h"))
        gateway = f"127.0.0.1:{free_ports(1)[0]}"
        cluster.nodes[0].options += ("--s3", gateway)
        settings = {"endpoint": cluster.endpoint, "origin": {"endpoint_url": origin.url}}
        cached = Where(f"http://{gateway}", f"cachesvc://{BUCKET}", settings)
        direct = Where(origin.url, f"file://{work}/origin/{BUCKET}")
        with cluster, Workers() as workers:
            yield Place(cluster, origin, workers, cached, direct)
