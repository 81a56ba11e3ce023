"""gRPC Read with payloads passed through beside the same service with plain protobuf messages.

Both ends differ: the plain server serializes ReadChunk and the plain client parses it, as generated
code does. One sync client, 8 MiB ranges, hot; throughput in GB/s.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.grpc_reader import OBJECT_BYTES
from benchmarks.harness import ENVIRONMENT, Figure, dev_origin, interleaved, node, ratios


def _speed(kind: str, address: str) -> float:
    """GB/s of a reading process."""
    command = [sys.executable, "-m", "benchmarks.grpc_reader", kind, address]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | ENVIRONMENT
    )
    return float(done.stdout)


def run(work: Path, rounds: int) -> dict[str, Any]:
    root = work / "root"
    (root / "bench").mkdir(parents=True)
    (root / "bench" / "object").write_bytes(bytes(range(256)) * (OBJECT_BYTES // 256))
    with (
        dev_origin(root) as origin,
        node(work / "ours", origin) as ours,
        node(work / "plain", origin, module="benchmarks.plain_node") as peer,
    ):
        speed = interleaved(
            {
                "client": lambda: _speed("client", ours.grpc),
                "passed": lambda: _speed("passed", ours.grpc),
                "plain": lambda: _speed("plain", peer.grpc),
                "plain warm": lambda: _speed("plain warm", peer.grpc),
            },
            rounds,
        )
    return {
        "8 MiB, CacheClient GB/s": Figure.of(speed["client"]).as_json(),
        "8 MiB, grpcio client, passed through GB/s": Figure.of(speed["passed"]).as_json(),
        "8 MiB, plain protobuf GB/s": Figure.of(speed["plain"]).as_json(),
        "8 MiB, plain protobuf, allocator warmed GB/s": Figure.of(speed["plain warm"]).as_json(),
        "CacheClient / plain": ratios(speed["client"], speed["plain"]).as_json(),
        "passed through / plain": ratios(speed["passed"], speed["plain"]).as_json(),
        "CacheClient / plain warmed": ratios(speed["client"], speed["plain warm"]).as_json(),
    }
