"""One cold range of an object whose version is known, by way of the lanes: ms until it is there.

64 KiB and 8 MiB ranges, each once, of an object that the node has nothing of; the origin answers at
once, or sends 90 MB/s on a connection. `readinto` over TCP and over the Unix socket, where what has
landed comes as bytes and what is stored as files, and `map`, which waits until all is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachesvc_client import CacheClient

from benchmarks.harness import MIB, Figure, dev_origin, in_turn, node, timed
from benchmarks.objects import make_object

BLOCK_BYTES = 8 * MIB
SIZES = {"64 KiB": 64 << 10, "8 MiB": 8 * MIB}
SHAPES = {"origin at once": (), "90 MB/s": ("--per-connection-mb-s", "90")}
_READS = 24  # of each size and system in a round
Read = Callable[[CacheClient, str, int, memoryview], None]


def _readinto(cache: CacheClient, uri: str, start: int, view: memoryview) -> None:
    if cache.readinto(uri, view, start) != len(view):
        raise RuntimeError("a short read")


def _map(cache: CacheClient, uri: str, start: int, view: memoryview) -> None:
    cache.map(uri, start, start + len(view)).close()


def _read_all(cache: CacheClient, uri: str, read: Read, size_bytes: int) -> list[float]:
    """ms of each read, all of blocks that were not touched before, apart from each other so that
    nobody reads ahead."""
    view = memoryview(bytearray(size_bytes))
    cache.stat(uri)
    return [
        timed(lambda start=start: read(cache, uri, start, view)) * 1000  # type: ignore[misc]
        for start in range(BLOCK_BYTES, (2 * _READS + 1) * BLOCK_BYTES, 2 * BLOCK_BYTES)
    ]


def run(work: Path, rounds: int) -> dict[str, Any]:
    root, socket = work / "origin", work / "node.sock"
    (root / "bench").mkdir(parents=True)
    base = root / "bench" / "base"
    make_object(base, 0, (2 * _READS + 2) * BLOCK_BYTES)
    found: dict[str, list[float]] = {}
    for shape, options in SHAPES.items():
        with (
            dev_origin(root, *options) as origin,
            node(work / shape, origin, "--unix", str(socket)) as one,
            CacheClient(f"{one.lane[0]}:{one.lane[1]}") as tcp,
            CacheClient(f"unix://{socket}") as unix,
        ):
            systems: dict[str, tuple[CacheClient, Read]] = {
                "TCP, readinto": (tcp, _readinto),
                "Unix, readinto": (unix, _readinto),
                "Unix, map": (unix, _map),
            }
            for number in range(rounds + 1):
                for name in in_turn(list(systems), number):
                    for size, size_bytes in SIZES.items():
                        cache, read = systems[name]
                        key = f"{name}-{size}-{number}".replace(" ", "-").replace(",", "")
                        (root / "bench" / key).hardlink_to(base)
                        times = _read_all(cache, f"s3://bench/{key}", read, size_bytes)
                        (root / "bench" / key).unlink()
                        if number:
                            found.setdefault(f"{shape}, {size}, {name}, ms", []).extend(times)
    return {name: _shown(times) for name, times in found.items()}


def _shown(times: list[float]) -> dict[str, float]:
    """The median of all reads, and the tenth and the last tenth of them in place of extremes."""
    ordered = sorted(times)
    tenth = len(ordered) // 10
    return Figure(Figure.of(times).median, ordered[tenth], ordered[-1 - tenth]).as_json()
