"""A node that is told to end does so while clients read on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.integration.promises.sample import MIB, random_bytes

pytestmark = pytest.mark.slow


def test_sigterm_ends_a_node_with_0_while_clients_read_on(
    tmp_path: Path, origin: DevOrigin
) -> None:
    content = random_bytes(10 * MIB)
    origin.put("b", "model", content)
    with Cluster(tmp_path, origin.url) as cluster, cluster.client() as client:
        assert client.read("s3://b/model") == content
        stop = threading.Event()

        def load() -> int:
            count = 0
            while not stop.is_set():
                assert client.read("s3://b/model") == content
                count += 1
            return count

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(load) for _ in range(2)]
            try:
                assert [node.terminate() for node in cluster.nodes[:2]] == [0, 0]
            finally:
                stop.set()
            assert all(reader.result() >= 1 for reader in readers)
