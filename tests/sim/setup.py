"""What one history is made of: sizes, limits, speeds and the mix of troubles, drawn from its seed.

Rules: everything is small, so that borders are met often: blocks of a few pages, objects of a few
blocks, stores of a few blocks, limits of a few requests. Many histories leave out many kinds of
trouble, so that no kind hides another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from cachesvc.buffers import MIN_BUFFER_BYTES, room_bytes
from cachesvc.core.format import TRAILER_BYTES
from cachesvc.core.types import Geometry

ROOMY_BUFFER_BYTES = 1024 * MIN_BUFFER_BYTES  # more than all flights of a history take

TROUBLES = (
    "overwrite", "delete", "crash", "dark", "slow", "refuse", "cut", "disk", "short", "full",
    "flip", "swap", "truncate", "members", "race",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setup:
    """Times in seconds. A capacity is of one node. troubles: the kinds, and how often each."""

    geometry: Geometry
    node_count: int
    disk_count: int
    client_count: int
    worker_count: int
    call_count: int
    object_sizes: tuple[int, ...]
    weak_etags: tuple[str | None, ...]
    capacity_bytes: int
    policy: str
    max_idle_open_count: int
    max_gets: int
    max_waiting_count: int
    max_buffer_bytes: int
    write_bytes: int
    small_bytes: int
    revalidate_s: float
    chunk_bytes: int
    chunk_pause_s: float
    latency_s: float
    think_s: float
    trouble_every_s: float
    troubles: dict[str, int]
    cancel_share: float
    owner_tries: int
    origin_part_bytes: int
    ask_max_bytes: int
    restart_count: int
    version_cache_count: int
    known_nodes: str

    @property
    def narrow(self) -> bool:
        """Whether a node may be too busy at all."""
        return self.max_waiting_count < 1000 or self.max_buffer_bytes < ROOMY_BUFFER_BYTES


def draw(rng: Random) -> Setup:
    """A setup, all of it from `rng`."""
    page_bytes = rng.choice((64, 64, 128))
    pages = rng.choice((4, 4, 8))
    block_bytes = page_bytes * pages
    extent_min = page_bytes * rng.choice([n for n in (1, 2, 4) if pages % n == 0])
    geometry = Geometry(block_bytes, page_bytes, extent_min, extent_min * rng.choice((1, 2, pages)))
    sizes = tuple(_size(rng, geometry) for _ in range(rng.randint(1, 3)))
    kinds = [kind for kind in TROUBLES if rng.random() < 0.45]
    disk_count = rng.choice((1, 1, 2))
    file_bytes = 2 * TRAILER_BYTES
    return Setup(
        geometry=geometry,
        node_count=rng.randint(1, 4),
        disk_count=disk_count,
        client_count=rng.choice((1, 2, 2, 3)),
        worker_count=rng.randint(1, 3),
        call_count=rng.randint(2, 6),
        object_sizes=sizes,
        weak_etags=tuple(
            rng.choice(('W/"same"', "")) if rng.random() < 0.1 else None for _ in sizes
        ),
        capacity_bytes=disk_count * file_bytes * rng.choice((0, 2, 3, 4, 8, 50)),
        policy=rng.choice(("s3fifo", "lru")),
        max_idle_open_count=rng.choice((0, 1, 2, 4096)),
        max_gets=rng.choice((1, 2, 4, 32)),
        max_waiting_count=rng.choice((2, 8, 4096, 4096)),
        max_buffer_bytes=rng.choice((room_bytes(geometry.extent_max_bytes), ROOMY_BUFFER_BYTES)),
        write_bytes=page_bytes * rng.choice((1, 2, pages, 64)),
        small_bytes=rng.choice((0, page_bytes, 2 * page_bytes, 1 << 16)),
        revalidate_s=rng.choice((0.0, 0.0, 0.02, 0.1, 0.5, 0.5, float("inf"))),
        chunk_bytes=rng.choice((90, 128, 200, 512, 4096)),
        chunk_pause_s=rng.choice((0.0, 0.001, 0.004)),
        latency_s=rng.choice((0.0, 0.002, 0.01, 0.01)),
        think_s=rng.choice((0.0, 0.01, 0.05)),
        trouble_every_s=rng.choice((0.004, 0.015, 0.05)),
        troubles={kind: rng.choice((1, 1, 3, 6)) for kind in kinds},
        cancel_share=rng.choice((0.0, 0.1, 0.4)),
        owner_tries=rng.randint(1, 3),
        origin_part_bytes=page_bytes * rng.choice((1, 3, 1000)),
        ask_max_bytes=rng.choice((block_bytes, 3 * block_bytes, 1 << 20)),
        restart_count=rng.choice((0, 2, 5)),
        version_cache_count=rng.choice((0, 2, 100)),
        known_nodes=rng.choice(("all", "all", "one", "none")),
    )


def _size(rng: Random, geometry: Geometry) -> int:
    """The size of an object: on a border, beside one, or anywhere."""
    unit = rng.choice((geometry.page_bytes, geometry.block_bytes))
    near = unit * rng.randint(0, 3) + rng.choice((-1, 0, 1))
    return max(0, rng.choice((near, rng.randrange(3 * geometry.block_bytes))))


def new_size(rng: Random, setup: Setup, old_bytes: int) -> int:
    """The size after an overwrite: mostly the old one, so that a mixture would not be noticed by
    length alone.
    """
    return old_bytes if rng.random() < 0.7 else _size(rng, setup.geometry)
