"""gRPC Read with payloads passed through beside the same service with plain protobuf messages.

Both ends differ: the plain client parses ReadChunk with protobuf, ours splits it in place. One
sync client, 8 MiB ranges, hot; throughput in GB/s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from benchmarks.harness import MIB, Figure, dev_origin, interleaved, node, ratios
from cachesvc.wire import codec
from cachesvc.wire.v1 import cache_pb2

OBJECT_BYTES, RANGE_BYTES = 256 * MIB, 8 * MIB
_METHOD = "/cachesvc.wire.v1.Cache/Read"


def _chunks(address: str, parse: Callable[[bytes], Any]) -> Callable[[int], Any]:
    channel = grpc.insecure_channel(address)
    read = channel.unary_stream(_METHOD, cache_pb2.ReadRequest.SerializeToString, parse)
    name = cache_pb2.ObjectName(bucket="bench", key="object")

    def ask(start: int) -> Any:
        wanted = cache_pb2.Range(start=start, end=start + RANGE_BYTES)
        return read(cache_pb2.ReadRequest(object=name, ranges=[wanted]))

    return ask


def _passed(address: str) -> Callable[[int, memoryview], None]:
    ask = _chunks(address, lambda raw: raw)

    def read(start: int, view: memoryview) -> None:
        for raw in ask(start):
            _, data = codec.split_chunk(raw)
            view[: len(data)] = data
            view = view[len(data) :]
        assert not view

    return read


def _plain(address: str) -> Callable[[int, memoryview], None]:
    ask = _chunks(address, cache_pb2.ReadChunk.FromString)

    def read(start: int, view: memoryview) -> None:
        for chunk in ask(start):
            view[: len(chunk.data)] = chunk.data
            view = view[len(chunk.data) :]
        assert not view

    return read


def _all(read: Callable[[int, memoryview], None]) -> float:
    buffer = memoryview(bytearray(RANGE_BYTES))
    started = time.perf_counter()
    for start in range(0, OBJECT_BYTES, RANGE_BYTES):
        read(start, buffer)
    return OBJECT_BYTES / (time.perf_counter() - started) / 1e9


def run(work: Path, rounds: int) -> dict[str, Any]:
    root = work / "root"
    (root / "bench").mkdir(parents=True)
    (root / "bench" / "object").write_bytes(bytes(range(256)) * (OBJECT_BYTES // 256))
    with (
        dev_origin(root) as origin,
        node(work / "ours", origin) as ours,
        node(work / "plain", origin, module="benchmarks.plain_node") as plain,
        node(
            work / "ahead", origin, module="benchmarks.plain_node", environment={"READ_AHEAD": "1"}
        ) as ahead,
    ):
        passed, made, made_ahead = _passed(ours.grpc), _plain(plain.grpc), _plain(ahead.grpc)
        speed = interleaved(
            {
                "passed": lambda: _all(passed),
                "plain": lambda: _all(made),
                "ahead": lambda: _all(made_ahead),
            },
            rounds,
        )
    passed_figures, plain_figures = speed["passed"], speed["plain"]
    return {
        "8 MiB, pass-through GB/s": Figure.of(passed_figures).as_json(),
        "8 MiB, plain protobuf GB/s": Figure.of(plain_figures).as_json(),
        "8 MiB, plain protobuf, made ahead as ours GB/s": Figure.of(speed["ahead"]).as_json(),
        "pass-through / plain (mark: at least 2)": ratios(passed_figures, plain_figures).as_json(),
        "pass-through / plain made ahead": ratios(passed_figures, speed["ahead"]).as_json(),
    }
