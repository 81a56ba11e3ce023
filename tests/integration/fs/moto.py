"""A node in front of moto, for what devorigin has not: uploads in parts and copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.cluster import Cluster


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
