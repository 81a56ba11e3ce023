"""No kill of a node shows; `make soak` runs this for longer."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.integration.promises.sample import MIB, gets, random_bytes, read_all

pytestmark = pytest.mark.slow

KILL_COUNT = int(os.environ.get("KILLS", "3"))  # `make soak` asks for more


@pytest.mark.timeout(120 + 30 * KILL_COUNT)
def test_no_client_sees_the_kill_of_a_node_and_its_blocks_are_hits_after_the_restart(
    tmp_path: Path, origin: DevOrigin
) -> None:
    contents = {f"s3://b/{n}": random_bytes(5 * MIB + n * 77_777, n) for n in range(6)}
    for uri, content in contents.items():
        origin.put("b", uri.rpartition("/")[2], content)
    numbers = random.Random(7)
    with Cluster(
        tmp_path, origin.url, options=("--capacity", "1GiB", "--revalidate", "never")
    ) as cluster:
        for uri, content in contents.items():
            assert read_all(cluster, uri) == content
        stop = threading.Event()
        done = [0] * 4

        def load(who: int) -> None:
            mine = random.Random(who)
            with cluster.client() as client:
                while not stop.is_set():
                    uri = mine.choice(sorted(contents))
                    start = mine.randrange(len(contents[uri]))
                    end = min(len(contents[uri]), start + mine.choice((10, 70_000, 3 * MIB)))
                    assert client.read(uri, start, end) == contents[uri][start:end]
                    done[who] += 1

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(load, who) for who in range(4)]
            try:
                for _ in range(KILL_COUNT):
                    node = numbers.choice(cluster.nodes)
                    node.kill()
                    wait_until(all_passed(done))
                    node.start()
                    node.ready()
            finally:
                stop.set()
            for reader in readers:
                reader.result()
        origin.clear_log()
        for uri, content in contents.items():
            assert read_all(cluster, uri) == content
        assert gets(origin) == []


def all_passed(done: list[int]) -> Callable[[], bool]:
    """Whether every counter has moved since now."""
    before = list(done)
    return lambda: all(now > then for now, then in zip(done, before, strict=True))


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)
