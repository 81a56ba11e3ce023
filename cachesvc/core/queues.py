"""First-in first-out queues of slot numbers, from whose middle a slot leaves in constant time.

Rules: a slot is in at most one queue of its Links at a time; the links are plain numbers in
arrays, so that a million queued slots cost 8 bytes each and nothing for the garbage collector to
walk. Pure: the caller holds the lock.

Story: a Links is the storage, two numbers per slot, shared by all queues of one policy: the slot's
neighbour on the older side and on the newer side. A Fifo is the two ends of one chain through it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

NIL = -1
_FIRST_SLOTS = 1024


class Links:
    """The neighbours of every slot, for all queues that share them."""

    __slots__ = ("newer", "older")

    def __init__(self) -> None:
        self.older = array("i")
        self.newer = array("i")

    def reserve(self, slot: int) -> None:
        """Make room for `slot`, by doubling."""
        if slot >= len(self.older):
            for links in (self.older, self.newer):
                grow(links, slot)


def grow(column: array[int], slot: int, filler: bytes = b"\0") -> None:
    """Lengthen a column of a slot table, by doubling, until it has room for `slot`."""
    if slot >= len(column):
        wanted = max(_FIRST_SLOTS, 2 * len(column), slot + 1)
        column.frombytes(filler * ((wanted - len(column)) * column.itemsize))


class Fifo:
    """A queue of slots. `oldest` and `newest` are NIL when it is empty."""

    __slots__ = ("_count", "_links", "newest", "oldest")

    def __init__(self, links: Links) -> None:
        self._links = links
        self._count = 0
        self.oldest = NIL
        self.newest = NIL

    def __len__(self) -> int:
        return self._count

    def push(self, slot: int) -> None:
        """Add a slot that is in no queue, as the newest."""
        links = self._links
        links.older[slot] = self.newest
        links.newer[slot] = NIL
        if self.newest == NIL:
            self.oldest = slot
        else:
            links.newer[self.newest] = slot
        self.newest = slot
        self._count += 1

    def remove(self, slot: int) -> None:
        """Take out a slot of this queue, wherever it stands."""
        older, newer = self._links.older[slot], self._links.newer[slot]
        if older == NIL:
            self.oldest = newer
        else:
            self._links.newer[older] = newer
        if newer == NIL:
            self.newest = older
        else:
            self._links.older[newer] = older
        self._count -= 1

    def newer_than(self, slot: int) -> int:
        """The next slot towards the newest end, or NIL."""
        return self._links.newer[slot]

    def __iter__(self) -> Iterator[int]:
        """All slots, oldest first. The slot that was yielded last may be removed meanwhile."""
        slot = self.oldest
        while slot != NIL:
            newer = self._links.newer[slot]
            yield slot
            slot = newer
