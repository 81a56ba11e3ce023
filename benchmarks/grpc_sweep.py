"""What gRPC Read makes of message size, frame size, read chunk size and flow control.

One variant differs from the base (what the node and the client use) in one thing. Each reads with
grpcio's own client, passing messages through, its allocator warmed as CacheClient's is: 8 MiB
ranges, hot, one sync client. GB/s, and the ratio to the base round by round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.grpc_reader import OBJECT_BYTES
from benchmarks.harness import ENVIRONMENT, MIB, Figure, dev_origin, interleaved, node, ratios

KIB = 1024
Options = dict[str, int]


@dataclass(frozen=True, slots=True)
class Variant:
    """Message size of the node, and channel options of the two ends."""

    message_bytes: int = MIB
    client: Options = field(default_factory=dict)
    server: Options = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        options = json.dumps(list(self.server.items()))
        return {"MESSAGE_BYTES": str(self.message_bytes), "SERVER_OPTIONS": options}


BASE = "base: messages of 1 MiB, grpcio's defaults"
_READ_CHUNK = "grpc.experimental.tcp_read_chunk_size"
_READ_CHUNKS = {
    _READ_CHUNK: MIB,
    "grpc.experimental.tcp_min_read_chunk_size": 256 * KIB,
    "grpc.experimental.tcp_max_read_chunk_size": 4 * MIB,
}
_WRITE_BUFFER = "grpc.http2.write_buffer_size"
VARIANTS = {
    BASE: Variant(),
    "messages of 256 KiB": Variant(256 * KIB),
    "messages of 512 KiB": Variant(512 * KIB),
    "messages of 2 MiB": Variant(2 * MIB),
    "frames up to 1 MiB": Variant(client={"grpc.http2.max_frame_size": MIB}),
    "frames up to 16 MiB": Variant(client={"grpc.http2.max_frame_size": 16 * MIB - 1}),
    "read chunks of 64 KiB": Variant(client={_READ_CHUNK: 64 * KIB}),
    "read chunks of 256 KiB to 4 MiB": Variant(client=_READ_CHUNKS),
    "window 4 MiB, no probing": Variant(
        client={"grpc.http2.bdp_probe": 0, "grpc.http2.lookahead_bytes": 4 * MIB}
    ),
    "window 16 MiB, no probing": Variant(
        client={"grpc.http2.bdp_probe": 0, "grpc.http2.lookahead_bytes": 16 * MIB}
    ),
    "write buffer 256 KiB": Variant(server={_WRITE_BUFFER: 256 * KIB}),
    "write buffer 1 MiB": Variant(server={_WRITE_BUFFER: MIB}),
    "write buffer 2 MiB": Variant(server={_WRITE_BUFFER: 2 * MIB}),
    "write buffer 4 MiB": Variant(server={_WRITE_BUFFER: 4 * MIB}),
    "write buffer 16 MiB": Variant(server={_WRITE_BUFFER: 16 * MIB}),
    "write buffer 2 MiB, messages of 512 KiB": Variant(512 * KIB, server={_WRITE_BUFFER: 2 * MIB}),
    "write buffer 4 MiB, messages of 2 MiB": Variant(2 * MIB, server={_WRITE_BUFFER: 4 * MIB}),
    "write buffer 2 MiB, frames up to 1 MiB": Variant(
        server={_WRITE_BUFFER: 2 * MIB}, client={"grpc.http2.max_frame_size": MIB}
    ),
}


def _speed(address: str, options: Options) -> float:
    """GB/s of a reading process."""
    command = [
        sys.executable, "-m", "benchmarks.grpc_reader", "passed warm", address, json.dumps(options)
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | ENVIRONMENT
    )
    return float(done.stdout)


def run(work: Path, rounds: int) -> dict[str, Any]:
    root = work / "root"
    (root / "bench").mkdir(parents=True)
    (root / "bench" / "object").write_bytes(bytes(range(256)) * (OBJECT_BYTES // 256))
    with ExitStack() as running:
        origin = running.enter_context(dev_origin(root))
        nodes: dict[tuple[str, ...], str] = {}
        systems: dict[str, Callable[[], float]] = {}
        for name, variant in VARIANTS.items():
            environment = variant.environment()
            key = tuple(environment.values())
            if key not in nodes:
                server = node(
                    work / str(len(nodes)),
                    origin,
                    module="benchmarks.sweep_node",
                    environment=environment,
                )
                nodes[key] = running.enter_context(server).grpc
            systems[name] = partial(_speed, nodes[key], variant.client)
        speed = interleaved(systems, rounds)
    figures: dict[str, Any] = {}
    for name, found in speed.items():
        figures[f"{name}, GB/s"] = Figure.of(found).as_json()
        if name != BASE:
            figures[f"{name} / base"] = ratios(found, speed[BASE]).as_json()
    return figures
