"""The objects of the workloads: made on disk, known page by page, and brought into every cache."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from cachesvc_client import CacheClient

from benchmarks.job import MIB, PAGE, PAGE_BYTES, VALUE_BYTES, split
from benchmarks.peers import Servers, store_in_redis
from benchmarks.rawlane import RawHttp

HOT_SERVERS = ("node", "sendfile", "nginx", "nginx cache", "varnish", "redis")


def make_object(path: Path, number: int, size_bytes: int) -> None:
    """Random bytes; every page begins with the object's number and its own. Old enough to have an
    ETag that is remembered."""
    piece = bytearray(random.Random(number).randbytes(MIB))
    with path.open("wb") as file:
        for first in range(0, size_bytes // PAGE_BYTES, MIB // PAGE_BYTES):
            for page in range(MIB // PAGE_BYTES):
                PAGE.pack_into(piece, page * PAGE_BYTES, number, first + page)
            file.write(piece[: size_bytes - first * PAGE_BYTES])
    made = time.time() - 3600
    os.utime(path, (made, made))


def hot_objects(servers: Servers, prefix: str, count: int, object_bytes: int) -> list[str]:
    """Objects that every cache has; their keys."""
    keys = [f"{prefix}-{number}" for number in range(count)]
    for number, key in enumerate(keys):
        make_object(servers.root / "bench" / key, number, object_bytes)
    warm(servers, keys, object_bytes)
    return keys


def warm(servers: Servers, keys: list[str], object_bytes: int) -> None:
    """Read every object once through each cache that runs."""
    buffer = memoryview(bytearray(VALUE_BYTES))
    for name, server in servers.running.items():
        if name == "node":
            with CacheClient(server.addresses["lane"]) as client:
                for key in keys:
                    for start in range(0, object_bytes, VALUE_BYTES):
                        client.readinto(f"s3://bench/{key}", buffer, start)
        elif name == "redis":
            for key in keys:
                store_in_redis(server.addresses["http"], key, servers.root / "bench" / key)
        elif name in ("nginx", "nginx cache", "varnish"):
            http = RawHttp(split(server.addresses["http"]))
            for key in keys:
                for start in range(0, object_bytes, VALUE_BYTES):
                    end = min(start + VALUE_BYTES, object_bytes)
                    http.read_into(f"/bench/{key}", start, buffer[: end - start])
            http.close()
