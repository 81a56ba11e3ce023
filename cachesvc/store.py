"""The store: which pages of which blocks this node has, on which device, and room for the next.

Story: a reader pins a block (`pin`), which opens its file once and proves by its trailer that it is
the block asked for (opener.py); the open file is shared by all pins and kept open for a while after
(pins.py). A fill writes adjacent pages (writer.py): data first, then the trailer that vouches for
them, then the index. Eviction unlinks; whoever holds a pin keeps the bytes (stock.py). A node that
starts takes in what it left on its disks (recovery.py).

Rules
- A page, once present, never changes. Presence is said by the trailer alone, in memory while the
  file is open.
- One lock guards index and open table and is never held over I/O; writers of one block follow one
  another, and no reader waits for one.
- A block that cannot prove who it is, or fails a page, is dropped and counted. A device that fails
  is taken out of use and the node goes on; a full one uses what fits, and tries again later.
- No fsync: after a power cut the checksums decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from cachesvc.core.blocks import BlockRef
from cachesvc.core.types import ObjectName
from cachesvc.device import Device
from cachesvc.disk.base import BlockFile, Disk
from cachesvc.metrics import Metrics
from cachesvc.opener import Opener
from cachesvc.part_sums import PartSums
from cachesvc.pins import MAX_IDLE_OPEN_COUNT, OpenBlocks, Pin
from cachesvc.recovery import Recovery
from cachesvc.stock import Stock
from cachesvc.writer import Writer


class Store:
    """Block files on one or more disks, `capacity_bytes` in all, split evenly.

    Thread-safe. `clock` gives seconds and need only grow. Until `recover` has run to its end, a
    block that is not in the index is looked for on the disks themselves, so that a restarted node
    serves its first hit at once. part_sums: of pages that were found right on this node.
    """

    def __init__(
        self,
        disks: Iterable[Disk],
        capacity_bytes: int,
        metrics: Metrics,
        *,
        policy: str = "s3fifo",
        clock: Callable[[], float] = time.monotonic,
        max_idle_open_count: int = MAX_IDLE_OPEN_COUNT,
    ) -> None:
        self._stock = Stock(disks, capacity_bytes, metrics, policy, clock, max_idle_open_count)
        self._opener = Opener(self._stock)
        self._writer = Writer(self._stock, self._opener)
        self.part_sums = PartSums()

    @property
    def devices(self) -> list[Device]:
        return self._stock.devices

    @property
    def open_blocks(self) -> OpenBlocks:
        """The open table, to be counted, and looked into."""
        return self._stock.open_blocks

    @property
    def recovering(self) -> bool:
        return self._stock.recovering

    @property
    def stored_bytes(self) -> int:
        return self._stock.stored_bytes

    @property
    def stored_count(self) -> int:
        return self._stock.stored_count

    def pin(self, block: BlockRef) -> Pin | None:
        """A pin for a reader who is served from what was stored before, or None if the block is
        not here. Opens the file if no one has it open. The eviction policy is told.
        """
        return self._opener.pin(block.id, hit=True)

    def hold(self, block: BlockRef) -> Pin | None:
        """Like `pin`, for one who reads what was just filled: the eviction policy is not told."""
        return self._opener.pin(block.id, hit=False)

    def pin_open(self, block_id: bytes, file: BlockFile) -> Pin | None:
        """A pin for a reader on this very file, if it is still the one that is open for the block.
        Asks no disk and waits for no one. The eviction policy is told.
        """
        return self._opener.pin_same(block_id, file)

    def touch(self, block_ids: Iterable[bytes]) -> None:
        """Tell the eviction policy of hits on blocks, of those whose files are open."""
        self._opener.touch(block_ids)

    def present(self, block: BlockRef) -> int:
        """A look, of which nobody is told: the bitmap of the block's pages that are here. Opens
        the file if no one has it open.
        """
        pin = self.hold(block)
        if pin is None:
            return 0
        present = pin.present
        pin.close()
        return present

    def at_hand(self, block: BlockRef) -> int | None:
        """A look for the event loop, which must not wait for a disk: like `present`, but None where
        the file would have to be opened.
        """
        return self._opener.at_hand(block.id)

    def none_of(self, name: ObjectName) -> bool:
        """A look: whether surely no version of the object has its block 0 here. Never while the
        store recovers.
        """
        with self._stock.lock:
            return self._stock.none_of(name)

    def write(self, block: BlockRef, first_page: int, data: memoryview, checksums: bytes) -> bool:
        """Store adjacent whole pages that begin at `first_page`.

        False: not stored, and nothing is lost by it.

        `data` ends on a page border or at the block's end; `checksums` has 8 bytes for each page.
        Blocks while the disk does; call it from a fill thread.
        """
        return self._writer.write(block, first_page, data, checksums)

    def drop(self, pin: Pin, check: str) -> None:
        """The pinned block failed a check: remove it, unless it was replaced already."""
        self._stock.drop(pin.held, check)

    def read_failed(self, pin: Pin, error: OSError) -> None:
        """Reading the pinned file failed: decide by errno what that says about its device."""
        self._stock.disk_error(pin.held.device, error)

    def recover(self) -> Iterator[int]:
        """Take in what stands on the disks, one block a step, while serving goes on. Each step
        yields the blocks of its device so far; -1 asks for a pause, because descriptors are short.

        Files that cannot prove who they are are removed. Beyond the capacity, eviction begins at
        once.
        """
        return Recovery(self._stock, self._opener).steps()

    def close(self) -> None:
        """Close idle files; pins that are still held stay readable.

        The disks are their opener's.
        """
        with self._stock.lock:
            closing = self._stock.open_blocks.detach_all()
        for file in closing:
            file.close()
