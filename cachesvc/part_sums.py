"""The checksums of parts of pages (core/parts.py), by block, within a bound of memory.

Rules: they say what bytes of a version must hash to, not where those are stored: they outlive the
block's file, and do harm to nobody when it is gone. Of the blocks, those that were noted first go
first. `of` and `get` take no lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from threading import Lock

from cachesvc.core.blocks import BlockRef
from cachesvc.core.parts import PER_PAGE, SUMS_BYTES

MAX_BYTES = 32 << 20
_ENTRY_BYTES = 512  # of memory that a block takes beside its checksums


class BlockSums:
    """Those of one block. sums: one after another, PER_PAGE for a page; zeros where they are not
    known. numbers: the same, one each.
    """

    __slots__ = ("numbers", "sums")

    def __init__(self, page_count: int) -> None:
        self.sums = bytearray(page_count * SUMS_BYTES)
        self.numbers = memoryview(self.sums).cast("Q")


class PartSums:
    """Of one node. Any thread may use it."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._blocks: OrderedDict[bytes, BlockSums] = OrderedDict()
        # those of a block, by its id, or None
        self.get: Callable[[bytes], BlockSums | None] = self._blocks.get
        self._lock = Lock()
        self.held_bytes = 0

    def of(self, block_id: bytes, page: int) -> bytes | None:
        """The checksums of a page's parts, if they are known."""
        known = self.get(block_id)
        if known is None or not known.numbers[page * PER_PAGE]:
            return None
        return bytes(known.sums[page * SUMS_BYTES : (page + 1) * SUMS_BYTES])

    def note(self, block: BlockRef, first_page: int, sums: bytes | bytearray) -> None:
        """Remember those of adjacent pages (parts.of_page)."""
        start = first_page * SUMS_BYTES
        with self._lock:
            known = self._blocks.get(block.id)
            if known is None:
                known = self._blocks[block.id] = BlockSums(block.page_count)
                self.held_bytes += _size_bytes(known)
            known.sums[start : start + len(sums)] = sums
            while self.held_bytes > self._max_bytes:
                _, oldest = self._blocks.popitem(last=False)
                self.held_bytes -= _size_bytes(oldest)

    def forget(self, block_ids: Iterable[bytes]) -> None:
        """What is known of these blocks is made anew."""
        with self._lock:
            for block_id in block_ids:
                known = self._blocks.pop(block_id, None)
                if known is not None:
                    self.held_bytes -= _size_bytes(known)


def _size_bytes(known: BlockSums) -> int:
    return len(known.sums) + _ENTRY_BYTES
