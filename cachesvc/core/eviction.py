"""What leaves when the store is full: eviction policies over the slot numbers of an index.

Rules: a policy decides and never acts: `victim` names a slot, and the index removes it. It may sort
its own queues while it looks, by a bounded number of moves, so that no call stalls the node however
hot everything is. Sizes are in bytes because blocks differ (last blocks of objects, holes). A slot
that the caller protects is passed over and keeps its place.

Story: the index tells its policy of every block that comes, is hit, changes size or goes. S3Fifo is
the default: most blocks of a scan are read once, and a small queue in front of the main one lets
them leave without ever displacing what is hot. Lru is the plain second, to compare with.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Protocol

from cachesvc.core.queues import NIL, Fifo, Links, grow

Protect = Callable[[int], bool]

MAX_MOVES = 512  # per call of victim and queue: about half a millisecond
MIN_GHOSTS = 16
_MOST_HITS = 3
_HITS = 0b011  # a slot's state: its hits, and which queue it is in
_IN_MAIN = 0b100
_GHOST_BYTES = 7  # of a block id: below 2**60, where CPython's ints are smallest


class Policy(Protocol):
    """Decides what is evicted next. `capacity_bytes` is what the stored blocks may add up to."""

    capacity_bytes: int

    def inserted(self, slot: int, block_id: bytes, size_bytes: int) -> None:
        """A block came to a slot that was free."""

    def touched(self, slot: int) -> None:
        """A block was hit."""

    def resized(self, slot: int, old_bytes: int, new_bytes: int) -> None:
        """A block takes more or less space than before."""

    def removed(self, slot: int) -> None:
        """A block is gone for another reason than eviction: deleted, corrupt, its disk lost."""

    def evicted(self, slot: int, block_id: bytes) -> None:
        """A block is gone because it was the victim."""

    def victim(self, protect: Protect | None = None) -> int | None:
        """The slot that should leave next. None if there is none, or `protect` holds for all."""


class Lru:
    """Evicts the block whose last hit, or arrival, is longest ago."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._links = Links()
        self._queue = Fifo(self._links)

    def inserted(self, slot: int, block_id: bytes, size_bytes: int) -> None:
        del block_id, size_bytes
        self._links.reserve(slot)
        self._queue.push(slot)

    def touched(self, slot: int) -> None:
        if slot != self._queue.newest:
            self._queue.remove(slot)
            self._queue.push(slot)

    def resized(self, slot: int, old_bytes: int, new_bytes: int) -> None:
        pass

    def removed(self, slot: int) -> None:
        self._queue.remove(slot)

    def evicted(self, slot: int, block_id: bytes) -> None:
        del block_id
        self._queue.remove(slot)

    def victim(self, protect: Protect | None = None) -> int | None:
        return _oldest_free(self._queue, protect)


class S3Fifo:
    """S3-FIFO: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.

    New blocks enter a small queue of a tenth of the capacity; those hit at least twice when they
    reach its end move on to the main queue, the others are evicted and leave a ghost. A block that
    comes back while its ghost is remembered enters the main queue at once. In the main queue a
    block that was hit goes round again, one hit poorer. Hits count to 3; there are as many ghosts
    as blocks at most.

    One departure: a queue that had MAX_MOVES moves without a victim, because all it holds is hot,
    is left for the other one, and in the end the oldest block is taken, hot or not. The paper's
    loops have no such bound, and would stall a node with a million hot blocks for seconds.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._links = Links()
        self._small = Fifo(self._links)
        self._main = Fifo(self._links)
        self._small_bytes = 0
        self._sizes = array("I")
        self._states = array("B")
        self._ghosts = Ghosts()

    def inserted(self, slot: int, block_id: bytes, size_bytes: int) -> None:
        self._links.reserve(slot)
        grow(self._sizes, slot)
        grow(self._states, slot)
        self._sizes[slot] = size_bytes
        if block_id in self._ghosts:
            self._states[slot] = _IN_MAIN
            self._main.push(slot)
        else:
            self._states[slot] = 0
            self._small.push(slot)
            self._small_bytes += size_bytes

    def touched(self, slot: int) -> None:
        if self._states[slot] & _HITS < _MOST_HITS:
            self._states[slot] += 1

    def resized(self, slot: int, old_bytes: int, new_bytes: int) -> None:
        self._sizes[slot] = new_bytes
        if not self._states[slot] & _IN_MAIN:
            self._small_bytes += new_bytes - old_bytes

    def removed(self, slot: int) -> None:
        if self._states[slot] & _IN_MAIN:
            self._main.remove(slot)
        else:
            self._small.remove(slot)
            self._small_bytes -= self._sizes[slot]

    def evicted(self, slot: int, block_id: bytes) -> None:
        if not self._states[slot] & _IN_MAIN:
            self._ghosts.add(block_id, max(MIN_GHOSTS, len(self._small) + len(self._main)))
        self.removed(slot)

    def victim(self, protect: Protect | None = None) -> int | None:
        queues = [self._victim_of_small, self._victim_of_main]
        if self._small_bytes * 10 < self.capacity_bytes:
            queues.reverse()
        for choose in queues:
            slot = choose(protect)
            if slot is not None:
                return slot
        slot = _oldest_free(self._main, protect)
        return slot if slot is not None else _oldest_free(self._small, protect)

    def _victim_of_small(self, protect: Protect | None) -> int | None:
        """The oldest with at most one hit; those with more move on to the main queue."""
        moves = 0
        slot = self._small.oldest
        while slot != NIL and moves < MAX_MOVES:
            newer = self._small.newer_than(slot)
            if self._states[slot] & _HITS > 1:
                self.removed(slot)
                self._states[slot] = _IN_MAIN
                self._main.push(slot)
                moves += 1
            elif protect is None or not protect(slot):
                return slot
            slot = newer
        return None

    def _victim_of_main(self, protect: Protect | None) -> int | None:
        """The oldest without a hit; those with hits go round again."""
        moves = 0
        slot = self._main.oldest
        while slot != NIL and moves < MAX_MOVES:
            newer = self._main.newer_than(slot)
            if self._states[slot] & _HITS:
                self._states[slot] -= 1
                self._main.remove(slot)
                self._main.push(slot)
                moves += 1
                newer = slot if newer == NIL else newer
            elif protect is None or not protect(slot):
                return slot
            slot = newer
        return None


def _oldest_free(queue: Fifo, protect: Protect | None) -> int | None:
    return next((slot for slot in queue if protect is None or not protect(slot)), None)


class Ghosts:
    """The ids of blocks that were evicted lately, cut to 56 bits each.

    Two generations: the young one takes new ghosts until it holds half of the limit and then
    becomes the old one, which is forgotten whole. So between half and all of the limit is
    remembered, and nothing is deleted one by one, which would leave a large dict half empty.
    """

    def __init__(self) -> None:
        self._young: dict[int, None] = {}
        self._old: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, block_id: bytes) -> bool:
        ghost = int.from_bytes(block_id[:_GHOST_BYTES], "big")
        return ghost in self._young or ghost in self._old

    def add(self, block_id: bytes, limit_count: int) -> None:
        """Remember a block; at most `limit_count` are remembered afterwards."""
        if 2 * len(self._young) >= limit_count:
            self._old, self._young = self._young, {}
        if len(self) >= limit_count:
            self._old = {}
        self._young[int.from_bytes(block_id[:_GHOST_BYTES], "big")] = None
