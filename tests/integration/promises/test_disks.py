"""No fault of a disk shows: damaged files, a full data directory, one that vanishes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.integration.promises.sample import BLOCK, MIB, block_files, gets, random_bytes

pytestmark = pytest.mark.slow


def test_a_damaged_block_is_found_refetched_and_never_served(
    tmp_path: Path, origin: DevOrigin
) -> None:
    content = random_bytes(3 * BLOCK + 12_345)
    origin.put("b", "model", content)
    numbers = random.Random(11)
    with Cluster(tmp_path, origin.url, 2) as cluster, cluster.client() as client:
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
