"""Filling from the origin: our fill threads beside aiobotocore's streaming body, into memory.

512 MiB in 8 MiB GETs from a local origin, 1, 4 and 16 at a time, on uvloop; GB/s.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from aiobotocore.session import get_session

from benchmarks.harness import ENVIRONMENT, MIB, Figure, dev_origin, ratios
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.metrics import Metrics
from cachesvc.origin.s3 import S3Origin, S3Settings

OBJECT_BYTES, GET_BYTES = 512 * MIB, 8 * MIB
AT_ONCE = (1, 4, 16)


class _Memory:
    """A sink that keeps its bytes in a ready buffer."""

    cancelled = False

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def landed(self, count_bytes: int) -> None:
        pass

    def broke_off(self) -> None:
        pass

    def from_peer(self) -> None:
        raise AssertionError("the object store is no peer")


async def _all(get: Callable[[int, memoryview], Awaitable[None]], at_once: int) -> float:
    """GB/s of the whole object, `at_once` GETs at a time."""
    buffers = [memoryview(bytearray(GET_BYTES)) for _ in range(at_once)]
    starts = iter(range(0, OBJECT_BYTES, GET_BYTES))

    async def one(buffer: memoryview) -> None:
        for start in starts:
            await get(start, buffer)

    before = time.perf_counter()
    await asyncio.gather(*(one(buffer) for buffer in buffers))
    return OBJECT_BYTES / (time.perf_counter() - before) / 1e9


async def _measure(url: str, rounds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    origin = S3Origin(S3Settings(endpoint_url=url), Metrics())
    version: ObjectVersion = await origin.head(ObjectName("bench", "object"))
    async with get_session().create_client("s3", endpoint_url=url) as client:

        async def ours(start: int, buffer: memoryview) -> None:
            await origin.fetch(version, ByteRange(start, start + len(buffer)), _Memory(buffer))

        async def theirs(start: int, buffer: memoryview) -> None:
            wanted = f"bytes={start}-{start + len(buffer) - 1}"
            answer = await client.get_object(Bucket="bench", Key="object", Range=wanted)
            position = 0
            async for chunk in answer["Body"].iter_chunks(MIB):
                buffer[position : position + len(chunk)] = chunk
                position += len(chunk)

        for at_once in AT_ONCE:
            speeds: dict[str, list[float]] = {"fill threads": [], "aiobotocore": []}
            for _ in range(rounds):
                speeds["fill threads"].append(await _all(ours, at_once))
                speeds["aiobotocore"].append(await _all(theirs, at_once))
            for name, values in speeds.items():
                figures[f"{at_once} at once, {name} GB/s"] = Figure.of(values).as_json()
            ratio = ratios(speeds["fill threads"], speeds["aiobotocore"])
            figures[f"{at_once} at once, fill threads / aiobotocore"] = ratio.as_json()
    await origin.close()
    return figures


def run(work: Path, rounds: int) -> dict[str, Any]:
    root = work / "root"
    (root / "bench").mkdir(parents=True)
    (root / "bench" / "object").write_bytes(bytes(range(256)) * (OBJECT_BYTES // 256))
    os.environ.update(ENVIRONMENT)
    with dev_origin(root) as url:
        return uvloop.run(_measure(url, rounds))
