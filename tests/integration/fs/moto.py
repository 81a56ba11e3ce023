"""A node in front of moto, for what devorigin has not: uploads in parts and copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.cluster import Cluster

if TYPE_CHECKING:
    from cachesvc_client.fs import CacheFileSystem


@contextmanager
def moto_cluster(work: Path) -> Iterator[Cluster]:
    """`cluster.origin` is moto's address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with Cluster(work, f"http://{host}:{port}", 1) as cluster:
            yield cluster
    finally:
        server.stop()


def file_system(cluster: Cluster) -> CacheFileSystem:
    """One of its own, of the cluster and its origin."""
    from cachesvc_client.fs import CacheFileSystem

    return CacheFileSystem(
        cluster.endpoint, origin={"endpoint_url": cluster.origin}, skip_instance_cache=True
    )
