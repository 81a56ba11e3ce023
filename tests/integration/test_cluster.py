"""Promises of a whole cluster, kept by real processes: how often the origin is asked, and that no
fault of a node, a disk or the origin shows.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cachesvc_client import CacheClient, CacheError, ObjectChanged, ObjectNotFound

from cachesvc.devorigin import DevOrigin, Fault
from tests.integration.cluster import Cluster

MIB = 1 << 20
BLOCK = 8 * MIB
KILL_COUNT = int(os.environ.get("KILLS", "5"))  # `make soak` asks for more
pytestmark = pytest.mark.slow


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[DevOrigin]:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as one:
        yield one


def random_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def gets(origin: DevOrigin) -> list[tuple[int, int]]:
    found = [one.range for one in origin.requests if one.operation == "GetObject"]
    assert None not in found
    return [one for one in found if one is not None]


def read_all(cluster: Cluster, uri: str) -> bytes:
    with cluster.client() as client:
        return client.read(uri)


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


def test_a_damaged_block_is_found_refetched_and_never_served(
    tmp_path: Path, origin: DevOrigin
) -> None:
    content = random_bytes(3 * BLOCK + 12_345)
    origin.put("b", "model", content)
    numbers = random.Random(11)
    with Cluster(tmp_path, origin.url) as cluster, cluster.client() as client:
        assert client.read("s3://b/model") == content
        damages: list[Callable[[list[Path]], object]] = [
            lambda files: flip(files, numbers, 3),
            lambda files: flip_trailer(files, numbers),
            swap,
            lambda files: os.truncate(files[0], files[0].stat().st_size - 4096),
            lambda files: os.truncate(files[0], 0),
            overwrite,
            misname,
        ]
        for damage in damages:
            files = block_files(cluster)
            for node in cluster.nodes:
                node.kill()
            damage(files)
            for node in cluster.nodes:
                node.start()
            for node in cluster.nodes:
                node.ready()
            for start, end in ((0, None), (70_001, 70_010), (BLOCK - 5, BLOCK + 5)):
                assert client.read("s3://b/model", start, end) == content[start:end]
            assert len(block_files(cluster)) >= 4
        for file in block_files(cluster):
            flip([file], numbers, 1, data_only=True)
        assert client.read("s3://b/model") == content
        assert client.read("s3://b/model", 100, 200) == content[100:200]


def block_files(cluster: Cluster) -> list[Path]:
    return sorted(path for node in cluster.nodes for path in node.data.glob("blocks/*/*.block"))


def flip(files: list[Path], numbers: random.Random, count: int, *, data_only: bool = False) -> None:
    for path in files:
        raw = bytearray(path.read_bytes())
        for _ in range(count):
            limit = len(raw) - (8192 if data_only else 0)
            raw[numbers.randrange(limit)] ^= 1 << numbers.randrange(8)
        with path.open("r+b") as file:
            file.write(raw)


def flip_trailer(files: list[Path], numbers: random.Random) -> None:
    for path in files:
        raw = bytearray(path.read_bytes())
        raw[-numbers.randrange(1, 4096)] ^= 1 << numbers.randrange(8)
        path.write_bytes(raw)


def overwrite(files: list[Path]) -> None:
    files[0].write_bytes(b"\0" * 5000)


def misname(files: list[Path]) -> None:
    files[0].rename(files[0].with_name("0" * 32 + ".block"))


def swap(files: list[Path]) -> None:
    first, second = files[:2]
    spare = first.with_name("spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)


def test_reads_go_on_when_the_data_directory_is_full(tmp_path: Path, origin: DevOrigin) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        contents = {f"s3://b/{n}": random_bytes(9 * MIB, n) for n in range(6)}
        for uri, content in contents.items():
            origin.put("b", uri.rpartition("/")[2], content)
        with Cluster(small, origin.url, count=1) as cluster, cluster.client() as client:
            for _ in range(2):
                for uri, content in contents.items():
                    assert client.read(uri) == content
            node = cluster.nodes[0]
            for _ in range(3):
                with ThreadPoolExecutor(4) as pool:
                    assert list(pool.map(client.read, contents)) == list(contents.values())
                assert 13 * MIB < node.metric("stored_bytes") <= 24 * MIB
                assert node.metric("capacity_bytes") > 22 * MIB, "what fits is used"
            assert node.metric("evicted_bytes_total") > 0
            last = list(contents)[-1]
            assert client.read(last) == contents[last]
            origin.clear_log()
            assert client.read(last) == contents[last]
            assert len(gets(origin)) <= 1, "what was read last is mostly still there"
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_data_directory_that_vanishes_takes_no_byte_with_it(
    tmp_path: Path, origin: DevOrigin
) -> None:
    content = random_bytes(20 * MIB)
    origin.put("b", "model", content)
    with Cluster(tmp_path, origin.url, count=1) as cluster, cluster.client() as client:
        assert client.read("s3://b/model") == content
        shutil.rmtree(cluster.nodes[0].data / "blocks")
        assert client.read("s3://b/model") == content
        assert client.read("s3://b/model", 5, 500_000) == content[5:500_000]


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


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind}-{fault.after_bytes}")
def test_whatever_the_origin_does_an_answer_is_whole_and_right(
    tmp_path: Path, origin: DevOrigin, fault: Fault
) -> None:
    content = random_bytes(9 * MIB + 5)
    origin.put("b", "model", content)
    with Cluster(tmp_path, origin.url, count=1) as cluster, cluster.client() as client:
        origin.faults = [fault]
        assert client.read("s3://b/model") == content
        assert client.read("s3://b/model") == content


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


ODD_KEYS = ["a//b", "a/../b", "../up", "/lead", "trail/", "+ %2F%", "ünï/😀", "x" * 1024, "."]


def test_odd_keys_are_read_byte_for_byte(tmp_path: Path, origin: DevOrigin) -> None:
    for number, key in enumerate(ODD_KEYS):
        origin.put("b", key, random_bytes(1000, number))
    origin.put("b", "empty", b"")
    with Cluster(tmp_path, origin.url, count=2) as cluster, cluster.client() as client:
        for number, key in enumerate(ODD_KEYS):
            for _ in range(2):
                assert client.read(f"s3://b/{key}") == random_bytes(1000, number)
        assert client.read("s3://b/empty") == b""
        assert client.read("s3://b/empty", 0, 5) == b""


def test_what_is_missing_or_wrong_is_named(tmp_path: Path, origin: DevOrigin) -> None:
    origin.put("b", "key", b"0123456789")
    with Cluster(tmp_path, origin.url, count=2) as cluster, cluster.client() as client:
        with pytest.raises(FileNotFoundError, match="s3://b/nothing"):
            client.read("s3://b/nothing")
        with pytest.raises(ObjectNotFound, match="s3://nowhere/key"):
            client.stat("s3://nowhere/key")
        for start, end in ((11, None), (-1, 5), (5, 4)):
            with pytest.raises(ValueError, match="s3://b/key"):
                client.read("s3://b/key", start, end)
        assert client.read("s3://b/key", 10) == b""
        assert client.read("s3://b/key", 8, 100) == b"89"
        for uri in ("s3://b/a\0b", "s3://b/", "s3:///k", "http://b/k", f"s3://b/{'x' * 1025}"):
            with pytest.raises(ValueError, match=r"."):
                client.read(uri)


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


def test_a_token_is_asked_for_on_every_door(tmp_path: Path, origin: DevOrigin) -> None:
    origin.put("b", "key", b"secret bytes")
    token_file = tmp_path / "token"
    token_file.write_text("open sesame\n")
    options = ("--capacity", "64MiB", "--token-file", str(token_file))
    with Cluster(tmp_path, origin.url, count=2, options=options) as cluster:
        for endpoint in (cluster.endpoint, f"grpc://{cluster.nodes[0].grpc}"):
            with CacheClient(endpoint, token="open sesame") as client:
                assert client.read("s3://b/key") == b"secret bytes"
                assert len(client.ring().members) == 2
            for wrong in ("open sesam", None):
                with CacheClient(endpoint, token=wrong) as client, pytest.raises(CacheError):
                    client.ring()


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)
