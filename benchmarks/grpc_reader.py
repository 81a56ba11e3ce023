"""One reading process of the gRPC benchmarks: `python -m benchmarks.grpc_reader KIND ADDRESS
[OPTIONS]`, OPTIONS being channel options in JSON for grpcio's own client.

Each reading is a process of its own, because what an earlier reader has freed decides how fast a
process receives (docs/decisions/0007-synchronous-grpc-server.md). It reads the object once
uncounted and once counted, into a ready buffer, and prints GB/s.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
from cachesvc_client import CacheClient

from benchmarks.harness import MIB
from cachesvc.wire import codec
from cachesvc.wire.v1 import cache_pb2

OBJECT_BYTES, RANGE_BYTES = 256 * MIB, 8 * MIB
_METHOD = "/cachesvc.wire.v1.Cache/Read"
Read = Callable[[int, memoryview], object]


def _chunks(
    address: str, parse: Callable[[bytes], Any], options: dict[str, int] | None = None
) -> Callable[[int], Any]:
    channel = grpc.insecure_channel(address, list((options or {}).items()))
    read = channel.unary_stream(_METHOD, cache_pb2.ReadRequest.SerializeToString, parse)
    name = cache_pb2.ObjectName(bucket="bench", key="object")

    def ask(start: int) -> Any:
        wanted = cache_pb2.Range(start=start, end=start + RANGE_BYTES)
        return read(cache_pb2.ReadRequest(object=name, ranges=[wanted]))

    return ask


def passed(address: str, options: dict[str, int] | None = None) -> Read:
    """grpcio's own client, messages passed through and split in place."""
    ask = _chunks(address, lambda raw: raw, options)

    def read(start: int, view: memoryview) -> None:
        for raw in ask(start):
            _, data = codec.split_chunk(raw)
            view[: len(data)] = data
            view = view[len(data) :]
        assert not view

    return read


def plain(address: str) -> Read:
    """A client as generated code makes it: protobuf parses every message."""
    ask = _chunks(address, cache_pb2.ReadChunk.FromString)

    def read(start: int, view: memoryview) -> None:
        for chunk in ask(start):
            view[: len(chunk.data)] = chunk.data
            view = view[len(chunk.data) :]
        assert not view

    return read


def plain_warm(address: str) -> Read:
    """The same, given what CacheClient does for its allocator."""
    bytearray(16 * MIB)
    return plain(address)


def passed_warm(address: str) -> Read:
    """Messages passed through, given what CacheClient does for its allocator."""
    bytearray(16 * MIB)
    return passed(address, json.loads(sys.argv[3]))


def client(address: str) -> Read:
    """CacheClient over grpc://, checksums checked."""
    cache = CacheClient(f"grpc://{address}")
    return lambda start, view: cache.readinto("s3://bench/object", view, start)


KINDS = {
    "client": client,
    "passed": passed,
    "passed warm": passed_warm,
    "plain": plain,
    "plain warm": plain_warm,
}


def main() -> None:
    read = KINDS[sys.argv[1]](sys.argv[2])
    buffer = memoryview(bytearray(RANGE_BYTES))
    for _ in range(2):
        started = time.perf_counter()
        for start in range(0, OBJECT_BYTES, RANGE_BYTES):
            read(start, buffer)
        seconds = time.perf_counter() - started
    print(OBJECT_BYTES / seconds / 1e9)


if __name__ == "__main__":
    main()
