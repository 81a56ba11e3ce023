"""One device of the store: a disk, the index of what stands on it, and its share of the capacity.

Rules: state only, no lock of its own; the store calls everything here under its lock and does the
I/O outside it. Space is counted as files really take it: `used_bytes` is what indexed files take,
plus what unlinked files still take while a reader holds them open, plus what writes under way have
reserved.
"""

from __future__ import annotations

from collections.abc import Callable

from cachesvc.core.index import Index
from cachesvc.disk.base import Disk


class Device:
    """A disk with an index, a capacity in bytes, and a state: in use, shrunk for a while
    because the disk was full, or failed for good."""

    def __init__(self, disk: Disk, capacity_bytes: int, policy: str) -> None:
        self.disk = disk
        self.index = Index(policy, capacity_bytes)
        self.capacity_bytes = capacity_bytes
        self._share_bytes = capacity_bytes
        self.reserved_bytes = 0
        self.doomed_bytes = 0
        self.leaving: set[bytes] = set()  # out of the index, their files about to be unlinked
        self.failure = ""
        self.full_until = float("-inf")
        self._policy = policy

    @property
    def used_bytes(self) -> int:
        return self.index.stored_bytes + self.reserved_bytes + self.doomed_bytes

    def touch(self, block_id: bytes) -> None:
        """Tell the eviction policy of a hit, if the block is here."""
        slot = self.index.get(block_id)
        if slot is not None:
            self.index.touch(slot)

    def shrink(self, fits_bytes: int, until: float) -> None:
        """The disk has less room than we were told: use what fits until then (on the store's
        clock).
        """
        self.full_until = until
        self._limit(min(self.capacity_bytes, fits_bytes))

    def regrow(self, now: float) -> None:
        """Go back to the whole share once the time of a shrink is over."""
        if self.capacity_bytes < self._share_bytes and now >= self.full_until:
            self._limit(self._share_bytes)

    def _limit(self, capacity_bytes: int) -> None:
        self.capacity_bytes = self.index.capacity_bytes = capacity_bytes

    def fail(self, why: str) -> list[bytes]:
        """Take the device out of use for good and forget what stood on it.

        Returns the forgotten ids.
        """
        lost = self.index.ids()
        self.failure = why
        self.index = Index(self._policy, self.capacity_bytes)
        return lost

    def make_room(
        self, need_bytes: int, stays: Callable[[bytes], bool]
    ) -> list[tuple[bytes, int]] | None:
        """Choose what must leave for `need_bytes` more: (id, bytes) pairs, already out of the
        index.

        `stays` says of a block that it must not be chosen. None: it cannot fit, and nothing was
        chosen in vain.
        """
        if need_bytes + self.reserved_bytes + self.doomed_bytes > self.capacity_bytes:
            return None
        victims = []
        while self.used_bytes + need_bytes > self.capacity_bytes:
            slot = self.index.victim(lambda slot: stays(self.index.block_id(slot)))
            if slot is None:
                break
            victims.append((self.index.block_id(slot), self.index.size_bytes(slot)))
            self.index.evicted(slot)
        return victims
