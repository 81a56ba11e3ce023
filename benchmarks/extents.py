"""How large one GET of a fill should be, how many at a time, and how far to read ahead.

The origin takes 30 ms (lognormal, p99 200 ms) to the first byte and sends 90 or 20 MB/s on a
connection. First the GETs by themselves, 256 MiB into memory that is used again: 4, 8 and 16 MiB
each, 8, 16 and 32 at a time. Then a cold object of 256 MiB through a node and CacheClient over the
TCP lane: in one call, and in 8 MiB ranges one after another, for which the node reads ahead; every
variant has a node of its own, whose store is full before.
GB/s, and the ratio to the base (what a node does) round by round.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import uvloop
from cachesvc_client import CacheClient

from benchmarks import origin_log
from benchmarks.environment import lack_of_room
from benchmarks.harness import (
    ENVIRONMENT,
    MIB,
    Figure,
    dev_origin,
    in_turn,
    interleaved,
    node,
    ratios,
    timed,
)
from benchmarks.objects import make_object
from cachesvc.core.types import PAGES_PER_BLOCK, ByteRange, ObjectName
from cachesvc.metrics import Metrics
from cachesvc.origin.s3 import S3Origin, S3Settings

OBJECT_BYTES, RANGE_BYTES = 256 * MIB, 8 * MIB
CAPACITY = "768MiB"  # full after three objects
GET_MIB, AT_ONCE = (4, 8, 16), (8, 16, 32)
BASE_GETS = "GETs of 8 MiB, 16 at a time"
_SPEED_AT = len(origin_log.SHAPE) - 1


@dataclass(frozen=True, slots=True)
class Variant:
    """Sizes in MiB; GETs at a time; blocks read ahead for one reader; MB/s of a connection."""

    block: int = 8
    extent: int = 16
    gets: int = 32
    ahead: int = 16
    speed: int = 90

    def environment(self) -> dict[str, str]:
        sizes = {
            "block_bytes": self.block * MIB,
            "page_bytes": self.block * MIB // PAGES_PER_BLOCK,
            "extent_max_bytes": self.extent * MIB,
        }
        return {"GEOMETRY": json.dumps(sizes), "READAHEAD_BLOCKS": str(self.ahead)}


BASE, SLOW = "blocks of 8 MiB, a GET each, 32 at a time, 16 ahead", "the same, 20 MB/s"
VARIANTS = {
    BASE: Variant(),
    "extents of 4 MiB": Variant(extent=4),
    "blocks of 16 MiB, extents of 16": Variant(block=16, ahead=8),
    "8 GETs at a time": Variant(gets=8),
    "8 GETs at a time, blocks of 16 MiB, extents of 16": Variant(block=16, gets=8, ahead=8),
    "8 ahead": Variant(ahead=8),
    "28 ahead": Variant(ahead=28),
    SLOW: Variant(speed=20),
    "28 ahead, 20 MB/s": Variant(ahead=28, speed=20),
    "60 ahead, 64 GETs at a time, 20 MB/s": Variant(gets=64, ahead=60, speed=20),
    "blocks of 16 MiB, extents of 16, 20 MB/s": Variant(block=16, ahead=8, speed=20),
}


class _Case:
    """One variant, and an endless supply of objects that its node has not seen."""

    def __init__(self, cache: CacheClient, origin: str, bucket: Path, number: int) -> None:
        self._cache = cache
        self._origin = origin
        self._bucket = bucket
        self._keys = (f"object-{number}-{again}" for again in count())
        self._view = memoryview(bytearray(OBJECT_BYTES))

    def read(self, range_bytes: int) -> float:
        """GB/s."""
        key = origin_log.new_key(self._origin, self._bucket, "base", next(self._keys))

        def work() -> None:
            for start in range(0, OBJECT_BYTES, range_bytes):
                view = self._view[start : start + range_bytes]
                if self._cache.readinto(f"s3://bench/{key}", view, start) != range_bytes:
                    raise RuntimeError("a short read")

        seconds = timed(work)
        (self._bucket / key).unlink()
        return OBJECT_BYTES / seconds / 1e9


class _Memory:
    """A sink that keeps its bytes in a ready buffer."""

    cancelled = False

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def from_peer(self) -> None:
        """See `Sink.from_peer`."""

    def landed(self, count_bytes: int) -> None:
        """See `Sink.landed`."""

    def broke_off(self) -> None:
        """See `Sink.broke_off`."""


async def _gets(url: str, rounds: int) -> dict[str, list[float]]:
    """GB/s by size of a GET and how many at a time."""
    origin = S3Origin(S3Settings(endpoint_url=url, max_gets=max(AT_ONCE)), Metrics())
    version = await origin.head(ObjectName("bench", "base"))
    memory = memoryview(bytearray(OBJECT_BYTES))
    found: dict[str, list[float]] = {}

    async def one(starts: Iterator[int], size_bytes: int) -> None:
        for start in starts:
            wanted = ByteRange(start, start + size_bytes)
            await origin.fetch(version, wanted, _Memory(memory[start : start + size_bytes]))

    for number in range(rounds + 1):
        for size, at_once in in_turn([(a, b) for a in GET_MIB for b in AT_ONCE], number):
            starts = iter(range(0, OBJECT_BYTES, size * MIB))
            before = time.perf_counter()
            await asyncio.gather(*(one(starts, size * MIB) for _ in range(at_once)))
            seconds = time.perf_counter() - before
            if number:
                name = f"GETs of {size} MiB, {at_once} at a time"
                found.setdefault(name, []).append(OBJECT_BYTES / seconds / 1e9)
    await origin.close()
    return found


def run(work: Path, rounds: int) -> dict[str, Any]:
    bucket = work / "root" / "bench"
    bucket.mkdir(parents=True)
    make_object(bucket / "base", 0, OBJECT_BYTES)
    os.environ.update(ENVIRONMENT)
    with dev_origin(work / "root", *origin_log.SHAPE) as url:
        gets = uvloop.run(_gets(url, rounds))
    figures: dict[str, Any] = {}
    for name, values in gets.items():
        figures[f"{name}, GB/s"] = Figure.of(values).as_json()
        if name != BASE_GETS:
            figures[f"{name} / base"] = ratios(values, gets[BASE_GETS]).as_json()
    lacking = lack_of_room(work, memory_gib=12, disk_gib=16)
    if lacking:
        return figures | {"through nodes": f"skipped: {lacking}"}
    return figures | _through_nodes(work, bucket, rounds)


def _through_nodes(work: Path, bucket: Path, rounds: int) -> dict[str, Any]:
    cases: dict[str, _Case] = {}
    with ExitStack() as running:
        origins: dict[int, str] = {}
        for number, (name, variant) in enumerate(VARIANTS.items()):
            if variant.speed not in origins:
                shape = [*origin_log.SHAPE]
                shape[_SPEED_AT] = str(variant.speed)
                origins[variant.speed] = running.enter_context(dev_origin(work / "root", *shape))
            origin = origins[variant.speed]
            one = running.enter_context(
                node(
                    work / str(number), origin, "--capacity", CAPACITY,
                    "--origin-gets", str(variant.gets),
                    module="benchmarks.fill_node", environment=variant.environment(),
                )
            )  # fmt: skip
            cache = running.enter_context(CacheClient(f"{one.lane[0]}:{one.lane[1]}"))
            cases[name] = _Case(cache, origin, bucket, number)
        figures: dict[str, Any] = {}
        for case in cases.values():  # with the round that does not count, its store is full
            case.read(OBJECT_BYTES)
            case.read(OBJECT_BYTES)
        for what, range_bytes in (("one call", OBJECT_BYTES), ("in order", RANGE_BYTES)):
            systems: dict[str, Callable[[], float]] = {
                name: partial(case.read, range_bytes) for name, case in cases.items()
            }
            figures |= _figures(what, interleaved(systems, rounds))
    return figures


def _figures(what: str, speed: dict[str, list[float]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, found in speed.items():
        base = SLOW if VARIANTS[name].speed != VARIANTS[BASE].speed else BASE
        figures[f"{what}: {name}, GB/s"] = Figure.of(found).as_json()
        if name != base:
            figures[f"{what}: {name} / base"] = ratios(found, speed[base]).as_json()
    return figures
