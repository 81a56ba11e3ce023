"""Bytes for a cluster of real processes, and what it asked the origin and wrote for them."""

from __future__ import annotations

import random
from pathlib import Path

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster

MIB = 1 << 20
BLOCK = 8 * MIB


def random_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def gets(origin: DevOrigin) -> list[tuple[int, int]]:
    found = [one.range for one in origin.requests if one.operation == "GetObject"]
    assert None not in found
    return [one for one in found if one is not None]


def read_all(cluster: Cluster, uri: str) -> bytes:
    with cluster.client() as client:
        return client.read(uri)


def block_files(cluster: Cluster) -> list[Path]:
    return sorted(path for node in cluster.nodes for path in node.data.glob("blocks/*/*.block"))
