"""A node that may open only 64 files: reads go on, every byte is right, and nobody hangs."""

from __future__ import annotations

import os
import random
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.support import until

MIB = 1 << 20
DESCRIPTOR_LIMIT = 64
CLIENT_COUNT = 48  # with what the node has open itself, more than it can accept
CONTENTS = {f"s3://b/{n}": random.Random(n).randbytes(2 * MIB + n) for n in range(80)}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as origin:
        for uri, content in CONTENTS.items():
            origin.put("b", uri.rpartition("/")[2], content)
        cluster = Cluster(tmp_path, origin.url, count=1)
        node = cluster.nodes[0]
        try:
            node.start()
            assert node.child is not None
            limits = (DESCRIPTOR_LIMIT, DESCRIPTOR_LIMIT)
            resource.prlimit(node.child.pid, resource.RLIMIT_NOFILE, limits)
            node.ready()
            assert resource.prlimit(node.child.pid, resource.RLIMIT_NOFILE) == limits
            yield cluster
        finally:
            cluster.__exit__(None, None, None)


def open_count(cluster: Cluster) -> int:
    child = cluster.nodes[0].child
    assert child is not None
    return len(os.listdir(f"/proc/{child.pid}/fd"))


@pytest.mark.slow
def test_fills_and_hits_of_more_blocks_than_files_may_be_open(cluster: Cluster) -> None:
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool, cluster.client() as client:
            assert list(pool.map(client.read, CONTENTS)) == list(CONTENTS.values())
    node = cluster.nodes[0]
    assert node.metric("device_healthy") == 1
    assert node.metric('requests_total{op="read",result="hit"}') > len(CONTENTS) / 2
    assert open_count(cluster) <= DESCRIPTOR_LIMIT


@pytest.mark.slow
def test_more_clients_than_can_be_accepted_read_all_the_same(cluster: Cluster) -> None:
    uris = list(CONTENTS)
    with cluster.client() as client:
        for uri in uris:
            assert client.read(uri) == CONTENTS[uri]
    started, slowest = threading.Barrier(CLIENT_COUNT), [0.0] * CLIENT_COUNT

    def read(who: int) -> None:
        with cluster.client() as mine:
            started.wait()
            for uri in random.Random(who).sample(uris, 4):
                began = time.monotonic()
                assert mine.read(uri) == CONTENTS[uri]
                slowest[who] = max(slowest[who], time.monotonic() - began)

    with ThreadPoolExecutor(CLIENT_COUNT) as pool:
        list(pool.map(read, range(CLIENT_COUNT)))
    assert max(slowest) < 30
    node = cluster.nodes[0]
    with ExitStack() as held:
        for _ in range(4):
            client = held.enter_context(cluster.client())
            assert client.read(uris[0]) == CONTENTS[uris[0]]
    until(lambda: open_count(cluster) <= DESCRIPTOR_LIMIT, "the node is within its limit")
    assert node.metric("device_healthy") == 1
