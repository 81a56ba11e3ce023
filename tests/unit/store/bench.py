"""What the tests of the store need: a store that can be opened again, and blocks to write."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cachesvc.core.blocks import BlockRef
from cachesvc.disk.base import Disk
from cachesvc.metrics import Metrics
from cachesvc.pins import Pin
from cachesvc.store import Store
from tests.support import GEOMETRY, Clock, block_data, blocks_of, pattern, store_pages, version_of

DATA = pattern(20 * GEOMETRY.block_bytes + 300)
BLOCKS = blocks_of(version_of(DATA))
BLOCK, LAST = BLOCKS[0], BLOCKS[-1]
ROOMY_BYTES = 1 << 20


class Bench:
    """A store over disks that outlive it, to be opened again as after a restart."""

    def __init__(self, *disks: Disk) -> None:
        self.disks = disks
        self.clock = Clock()
        self.open()

    def open(
        self, capacity_bytes: int = ROOMY_BYTES, recover: bool = True, max_idle: int = 4096
    ) -> Store:
        self.metrics = Metrics()
        self.store = Store(
            self.disks,
            capacity_bytes,
            self.metrics,
            clock=self.clock,
            max_idle_open_count=max_idle,
        )
        if recover:
            list(self.store.recover())
        return self.store

    def put(self, block: BlockRef, first: int = 0, beyond: int = 128) -> bool:
        return store_pages(self.store, block, block_data(block, DATA), first, beyond)

    def has(self, block: BlockRef) -> bool:
        pin = self.store.pin(block)
        if pin is None:
            return False
        with closing(pin):
            try:
                data = bytes_of(pin, block)
            except OSError as error:
                self.store.read_failed(pin, error)
                return False
            return pin.present == block.all_pages and data == block_data(block, DATA)

    def count(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"cachesvc_{metric}", labels) or 0.0


def bytes_of(pin: Pin, block: BlockRef) -> bytes | None:
    """All present pages, each checked; None if one of them fails."""
    pages = [pin.page(page) for page in range(block.page_count) if pin.present >> page & 1]
    return None if None in pages else b"".join(page for page in pages if page is not None)


def path_of(folder: Path, block: BlockRef) -> Path:
    return folder / block.id.hex()[:2] / f"{block.id.hex()}.block"


Damage = Callable[[Path], None]


def flip(at: int) -> Damage:
    def damage(path: Path) -> None:
        raw = bytearray(path.read_bytes())
        raw[at] ^= 0x10
        path.write_bytes(raw)

    return damage


def failing(number: int, *ops: str) -> Callable[[str], None]:
    def fail(op: str) -> None:
        if op in ops:
            raise OSError(number, os.strerror(number))

    return fail
