"""How often a cluster of real processes asks the origin."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.integration.promises.sample import MIB, gets, random_bytes

pytestmark = pytest.mark.slow


def test_64_clients_at_once_on_a_cold_object_cost_one_get_for_each_extent(
    tmp_path: Path, origin: DevOrigin
) -> None:
    content = random_bytes(64 * MIB)
    origin.put("b", "model", content)
    with Cluster(tmp_path, origin.url) as cluster:
        start = threading.Barrier(64)

        def read(_: int) -> bool:
            with cluster.client() as client:
                buffer = bytearray(len(content))
                start.wait()
                return client.readinto("s3://b/model", buffer) == len(content) and buffer == content

        with ThreadPoolExecutor(64) as pool:
            assert all(pool.map(read, range(64)))
    ranges = gets(origin)
    assert len(set(ranges)) == len(ranges) == 8
    assert sum(end - start for start, end in ranges) <= 1.02 * len(content)


def test_a_cold_tail_read_of_a_large_object_costs_one_get_of_at_most_1_mib(
    tmp_path: Path, origin: DevOrigin
) -> None:
    path = tmp_path / "origin" / "b" / "large"
    path.parent.mkdir(parents=True)
    size = 1 << 30
    tail = random_bytes(100_000)
    with path.open("wb") as file:
        file.truncate(size - len(tail))
        file.seek(0, os.SEEK_END)
        file.write(tail)
    with Cluster(tmp_path, origin.url) as cluster, cluster.client() as client:
        assert client.read("s3://b/large", size - len(tail)) == tail
    ((start, end),) = gets(origin)
    assert end - start <= MIB
