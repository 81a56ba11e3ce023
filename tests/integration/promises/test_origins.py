"""No fault of the origin shows, and no overwrite as a mixture or later than promised."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cachesvc_client import ObjectChanged

from cachesvc.devorigin import DevOrigin, Fault
from tests.integration.cluster import Cluster
from tests.integration.promises.sample import BLOCK, MIB, block_files, random_bytes

pytestmark = pytest.mark.slow

FAULTS = [
    Fault("503", count=3),
    Fault("cut", count=3),
    Fault("cut", count=3, after_bytes=100_000),
    Fault("reset", count=3),
    Fault("short_length", count=3),
    Fault("long_length", count=3),
    Fault("wrong_range", count=3),
    Fault("full_200", count=3),
    Fault("etag_change", count=1),  # more would be another version, from first to last byte
    Fault("slow_first_byte", count=3, delay_ms=300),
]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DevOrigin, Cluster]]:
    """An origin and a node that lives through all of its faults."""
    work = tmp_path_factory.mktemp("standing")
    (work / "origin").mkdir()
    with DevOrigin(work / "origin") as origin, Cluster(work, origin.url, count=1) as cluster:
        yield origin, cluster


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind}-{fault.after_bytes}")
def test_whatever_the_origin_does_an_answer_is_whole_and_right(
    standing: tuple[DevOrigin, Cluster], fault: Fault
) -> None:
    origin, cluster = standing
    key = f"{fault.kind}-{fault.after_bytes}"
    content = random_bytes(9 * MIB + 5, FAULTS.index(fault))
    origin.put("b", key, content)
    with cluster.client() as client:
        origin.clear_log()
        origin.faults = [fault]
        assert client.read(f"s3://b/{key}") == content
        assert [one for one in origin.requests if fault.kind in one.faults]
        assert client.read(f"s3://b/{key}") == content


@pytest.mark.parametrize(("revalidate", "revalidate_s"), [("1s", 1.0), ("always", 0.0)])
def test_random_ranges_during_overwrites_are_never_a_mixture_and_never_older_than_promised(
    tmp_path: Path, origin: DevOrigin, revalidate: str, revalidate_s: float
) -> None:
    """Every version is one number repeated; a read must see one number, current within the time
    promised. Every other read is one of a few small ones, which the node keeps ready.
    """
    size = 2 * BLOCK + 4000

    def version(number: int) -> bytes:
        return number.to_bytes(8, "big") * (size // 8)

    history = [(time.monotonic(), 0)]
    origin.put("b", "model", version(0))
    stop = threading.Event()

    def overwrite() -> None:
        number = 0
        while not stop.wait(0.3):
            number += 1
            origin.put("b", "model", version(number))
            history.append((time.monotonic(), number))

    def replaced_at(number: int) -> float:
        return next((at for at, later in history if later > number), float("inf"))

    def read(seed: int) -> int:
        numbers = random.Random(seed)
        count = 0
        with cluster.client() as client:
            while time.monotonic() < deadline:
                start = numbers.randrange(0, size - 8, 8)
                end = min(size, start + numbers.choice((8, 80_000, 9 * MIB)) // 8 * 8)
                if count % 2:
                    start = numbers.randrange(3) * 65_536
                    end = start + 4096
                began = time.monotonic()
                try:
                    found = client.read("s3://b/model", start, end)
                except ObjectChanged:
                    continue
                assert len(found) == end - start
                number = int.from_bytes(found[:8], "big")
                assert found == number.to_bytes(8, "big") * (len(found) // 8), "a mixture"
                assert replaced_at(number) >= began - revalidate_s, "too old"
                count += 1
        return count

    with Cluster(
        tmp_path, origin.url, options=("--capacity", "256MiB", "--revalidate", revalidate)
    ) as cluster:
        deadline = time.monotonic() + 6
        writer = threading.Thread(target=overwrite)
        writer.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                counts = list(pool.map(read, range(4)))
        finally:
            stop.set()
            writer.join()
    assert min(counts) > 0
    assert len(history) > 3


@pytest.mark.parametrize("etag_fault", ["no_etag", "weak_etag"])
def test_an_object_without_a_strong_etag_is_read_and_never_stored(
    tmp_path: Path, origin: DevOrigin, etag_fault: str
) -> None:
    content = random_bytes(9 * MIB)
    origin.put("b", "model", content)
    origin.faults = [Fault(etag_fault), Fault(etag_fault, method="HEAD")]
    with Cluster(tmp_path, origin.url, count=2) as cluster, cluster.client() as client:
        for start, end in ((0, None), (5, 10), (8 * MIB, None)):
            assert client.read("s3://b/model", start, end) == content[start:end]
        assert block_files(cluster) == []
