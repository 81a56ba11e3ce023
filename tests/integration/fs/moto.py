"""A node in front of moto, for what devorigin has not: uploads in parts and copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.cluster import Cluster
from tests.moto_server import running_moto

if TYPE_CHECKING:
    from cachesvc_client.fs import CacheFileSystem


@contextmanager
def moto_cluster(work: Path) -> Iterator[Cluster]:
    """`cluster.origin` is moto's address."""
    with running_moto() as url, Cluster(work, url, 1) as cluster:
        yield cluster


def file_system(cluster: Cluster) -> CacheFileSystem:
    """One of its own, of the cluster and its origin."""
    from cachesvc_client.fs import CacheFileSystem

    return CacheFileSystem(
        cluster.endpoint, origin={"endpoint_url": cluster.origin}, skip_instance_cache=True
    )
