"""Open block files, and the pins that hold them.

Story: whoever opens a block shares its file in the table (`OpenBlocks`) and gets a `Pin`; others
who want the block meanwhile get pins on the same file. With its last pin a file becomes idle and is
kept open for the next reader, until there are too many of them. A block that is evicted or dropped
is detached: no new pin finds its file, those that hold it keep the bytes.

Rules
- The table changes under the store's lock, which is never held over a file's I/O, closing included.
- Whoever looks at a block's file without the lock takes the block's mark before, and afterwards
  believes what was seen only if the mark is still the same.
- An unlinked file takes space while a pin holds it: its device counts that as doomed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from threading import Lock

from cachesvc.core.format import Trailer, checksum
from cachesvc.device import Device
from cachesvc.disk.base import BlockFile
from cachesvc.vouched import Vouched

MAX_IDLE_OPEN_COUNT = 4096  # open files kept for the next reader
_MARKS = 256


class OpenBlock:
    """An open block file, shared by all its pins. `live` until the block is evicted or dropped."""

    __slots__ = ("device", "file", "live", "refs", "taken_bytes", "trailer", "vouched")

    def __init__(self, device: Device, file: BlockFile, trailer: Trailer, taken_bytes: int) -> None:
        self.device = device
        self.file = file
        self.trailer = trailer
        self.taken_bytes = taken_bytes
        self.refs = 0
        self.live = True
        self.vouched = Vouched()


class Pin:
    """A hold on a block's bytes: while it lasts, what is present stays readable, evicted or not."""

    __slots__ = ("_table", "opened")

    def __init__(self, table: OpenBlocks, opened: OpenBlock) -> None:
        self._table = table
        self.opened: OpenBlock | None = opened

    @property
    def held(self) -> OpenBlock:
        """The open file of a pin that is not closed."""
        assert self.opened is not None, "the pin was closed"
        return self.opened

    @property
    def present(self) -> int:
        """The bitmap of pages that may be read."""
        return self.held.trailer.present

    def checksums(self, first_page: int, beyond_page: int) -> bytes:
        return self.held.trailer.checksums(first_page, beyond_page)

    def fileno(self) -> int:
        return self.held.file.fileno()

    def pread(self, start: int, end: int, *, wait: bool = True) -> bytes:
        """The bytes `[start, end)` of the block, unchecked. Fewer if the file was cut short.

        wait: False raises BlockingIOError where a disk would have to be waited for.
        """
        return self.held.file.pread(end - start, start, wait=wait)

    def readinto(self, view: memoryview, start: int) -> int:
        """The bytes from `start` of the block on, unchecked, into the view; how many there were."""
        return self.held.file.readinto(view, start)

    def page(self, page: int, *, wait: bool = True) -> bytes | None:
        """A whole page, checked against its checksum; None if it does not match.

        wait: see `pread`.
        """
        block = self.held.trailer.block
        start = page * block.geometry.page_bytes
        data = self.pread(start, start + block.page_length_bytes(page), wait=wait)
        return data if checksum(data) == self.checksums(page, page + 1) else None

    def close(self) -> None:
        """Let go. Closing twice is fine."""
        opened, self.opened = self.opened, None
        if opened is not None:
            self._table.let_go(opened)


class OpenBlocks:
    """The open table. `lock` is the store's; its holder calls what stands under "under the lock".

    At most `max_idle_count` files stay open for nobody.
    """

    def __init__(self, lock: Lock, max_idle_count: int) -> None:
        self.max_idle_count = max_idle_count
        self._lock = lock
        self._by_id: dict[bytes, OpenBlock] = {}
        # What is open for a block, or None: in one step, so that who only looks needs no lock. Who
        # reads the file without a pin may find it closed, and checks what he reads.
        self.get: Callable[[bytes], OpenBlock | None] = self._by_id.get
        self._idle: OrderedDict[bytes, OpenBlock] = OrderedDict()
        self._marks = [0] * _MARKS

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    @property
    def pin_count(self) -> int:
        """Pins on blocks that are not detached."""
        return sum(opened.refs for opened in list(self._by_id.values()))

    # -- under the lock

    def mark(self, block_id: bytes) -> int:
        """Another number whenever the block's file was made, opened, extended or given up. Blocks
        share marks: that it is another one proves nothing.
        """
        return self._marks[block_id[1]]

    def changed(self, block_id: bytes) -> None:
        """Something happens to the block's file: those who look at it just now look again."""
        self._marks[block_id[1]] += 1

    def pin(self, opened: OpenBlock) -> Pin:
        """One more pin on a file of the table."""
        opened.refs += 1
        self._idle.pop(opened.trailer.block.id, None)
        return Pin(self, opened)

    def used(self, block_id: bytes) -> None:
        """Somebody without a pin had use for an open file: if idle, it is closed last."""
        if block_id in self._idle:
            self._idle.move_to_end(block_id)

    def share(self, opened: OpenBlock) -> Pin:
        """Put a freshly opened file into the table; the first pin on it."""
        block_id = opened.trailer.block.id
        self._by_id[block_id] = opened
        self.changed(block_id)
        return self.pin(opened)

    def extend(self, opened: OpenBlock, trailer: Trailer) -> None:
        """From now on the file has the pages that the trailer vouches for."""
        opened.trailer = trailer
        self.changed(trailer.block.id)

    def pinned(self, block_id: bytes) -> bool:
        opened = self._by_id.get(block_id)
        return opened is not None and opened.refs > 0

    def detach(self, block_ids: Iterable[bytes]) -> list[BlockFile]:
        """No new pin finds the blocks' files; those that hold one keep it.

        Returns the files that nobody holds, to be closed once the lock is let go.
        """
        closing = []
        for block_id in block_ids:
            self.changed(block_id)
            opened = self._by_id.pop(block_id, None)
            if opened is None:
                continue
            opened.live = False
            if self._idle.pop(block_id, None) is not None:
                closing.append(opened.file)
            else:
                opened.device.doomed_bytes += opened.taken_bytes
        return closing

    def detach_all(self) -> list[BlockFile]:
        """For good: what is opened later, by threads that had begun before, stays open for nobody
        either.
        """
        self.max_idle_count = 0
        return self.detach(list(self._by_id))

    # -- taking the lock

    def let_go(self, opened: OpenBlock) -> None:
        """One pin less."""
        closing = []
        with self._lock:
            opened.refs -= 1
            doomed = opened.refs == 0 and not opened.live
            if doomed:
                closing.append(opened)
            elif opened.refs == 0:
                self._idle[opened.trailer.block.id] = opened
                while len(self._idle) > self.max_idle_count:
                    block_id, oldest = self._idle.popitem(last=False)
                    del self._by_id[block_id]
                    closing.append(oldest)
        for one in closing:
            one.file.close()
        if doomed:
            with self._lock:
                opened.device.doomed_bytes -= opened.taken_bytes
                opened.device.freed_bytes += opened.taken_bytes

    def take_idle(self, block_id: bytes) -> OpenBlock | None:
        """Out of the table, if nobody has it open; the taker closes its file."""
        with self._lock:
            idle = self._idle.pop(block_id, None)
            if idle is not None:
                del self._by_id[block_id]
        return idle

    def shed(self) -> None:
        """Close half of the files that are open for nobody: others need the descriptors more."""
        with self._lock:
            ids = list(self._idle)[: (len(self._idle) + 1) // 2]
            closing = [self._idle.pop(block_id) for block_id in ids]
            for block_id in ids:
                del self._by_id[block_id]
        for one in closing:
            one.file.close()
