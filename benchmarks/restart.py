"""A node that restarts with 100,000 blocks on its disk: how long until its first hit.

The block files are written by the store itself, one small object each, in this process; then a
real node is started on them and asked, over its lane, for a random block at once. Seconds from the
start of the process (Python's own start included) to `ready`, to the first hit, and to the end of
the recovery; the slowest round counts.
"""

from __future__ import annotations

import random
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.harness import node
from benchmarks.rawlane import RawLane
from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import checksum
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion
from cachesvc.devorigin.ports import free_ports
from cachesvc.disk.nvme import NvmeDisk
from cachesvc.metrics import Metrics
from cachesvc.store import Store

BLOCK_COUNT = 100_000
SIZE_BYTES = 4096


def _version(number: int) -> ObjectVersion:
    return ObjectVersion(ObjectName("bench", f"object-{number}"), f'"{number:032x}"', SIZE_BYTES)


def _content(number: int) -> bytes:
    return number.to_bytes(8, "big") * (SIZE_BYTES // 8)


def _fill(data: Path) -> None:
    disk = NvmeDisk(data)
    store = Store([disk], 4 << 30, Metrics())
    for _ in store.recover():
        pass
    geometry = Geometry()
    for number in range(BLOCK_COUNT):
        content = _content(number)
        block = BlockRef(_version(number), 0, geometry)
        if not store.write(block, 0, memoryview(content), checksum(content)):
            raise RuntimeError(f"block {number} was not stored")
    store.close()
    disk.close()


def _stored_count(admin: str) -> int:
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("cachesvc_stored_blocks "):
                return int(float(line.split()[1]))
    raise RuntimeError("no metric")


def run(work: Path, rounds: int) -> dict[str, Any]:
    data = work / "data"
    data.mkdir()
    _fill(data)
    figures: dict[str, list[float]] = {"ready": [], "first hit": [], "recovered": []}
    for number in range(min(rounds, 3)):
        (port,) = free_ports(1)
        admin = f"127.0.0.1:{port}"
        started = time.perf_counter()
        with node(data, "http://127.0.0.1:1", "--admin", admin) as one:
            figures["ready"].append(time.perf_counter() - started)
            lane = RawLane(one.lane)
            wanted = random.Random(number).randrange(BLOCK_COUNT)
            buffer = bytearray(SIZE_BYTES)
            lane.read_into(_version(wanted), 0, memoryview(buffer))
            figures["first hit"].append(time.perf_counter() - started)
            if bytes(buffer) != _content(wanted):
                raise RuntimeError("a wrong byte")
            while _stored_count(admin) < BLOCK_COUNT:
                time.sleep(0.05)
            figures["recovered"].append(time.perf_counter() - started)
            lane.close()
    return {f"{BLOCK_COUNT} blocks, {what}, s": max(values) for what, values in figures.items()} | {
        "mark": "first hit within 5 s"
    }
