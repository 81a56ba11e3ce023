"""One device of the store: a disk, the index of what stands on it, and its share of the capacity.

Story: blocks may take the device's share of the capacity, as long as the file system has it: each
`look` at what is free (see Disk.space) sets the capacity anew, so that space which others take, or
files that were evicted while clients map them, is not promised twice.

Rules: state only, no lock of its own; the store calls everything here under its lock and does the
I/O outside it. Space is counted as files really take it: `used_bytes` is what indexed files take,
plus what unlinked files still take while a reader holds them open, plus what writes under way have
reserved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cachesvc.core.index import Index
from cachesvc.disk.base import Disk, Space

VAIN_REST_S = 30.0  # how long nothing is evicted once evicting has given no space back
_HEADROOM_PART = 32  # of a file system is left to it, for its own needs and for what a look missed
_MAX_HEADROOM_BYTES = 512 << 20


class Account(NamedTuple):
    """What files of ours take: those that stay, at most, those that are about to go; and what was
    freed since the start.
    """

    kept_bytes: int
    most_bytes: int
    leaving_bytes: int
    freed_bytes: int


class Device:
    """A disk with an index, a capacity in bytes, and a state: in use, shrunk for a while because it
    was full, evicting nothing for a while because that gave no space back, or failed for good.
    """

    def __init__(self, disk: Disk, capacity_bytes: int, policy: str) -> None:
        self.disk = disk
        self.index = Index(policy, capacity_bytes)
        self.capacity_bytes = capacity_bytes
        self._share_bytes = capacity_bytes
        self.reserved_bytes = 0
        self.doomed_bytes = 0
        self.freed_bytes = 0  # by files that are gone, since the start
        # Out of the index, their files about to be unlinked, and what these take.
        self.leaving: dict[bytes, int] = {}
        self.failure = ""
        self.full_until = float("-inf")
        self.vain_until = float("-inf")
        self.looked_at = float("-inf")
        self._room_bytes = capacity_bytes  # what the file system has for us, by the last look
        self._bound_bytes = capacity_bytes
        self._removed = False  # since the last look
        self._low = False  # at the last look
        self._policy = policy

    @property
    def used_bytes(self) -> int:
        return self.index.stored_bytes + self.reserved_bytes + self.doomed_bytes

    @property
    def leaving_bytes(self) -> int:
        return sum(self.leaving.values())

    def touch(self, block_id: bytes) -> None:
        """Tell the eviction policy of a hit, if the block is here."""
        slot = self.index.get(block_id)
        if slot is not None:
            self.index.touch(slot)

    def account(self) -> Account:
        """What our files may take on the disk at this moment: what is reserved may be written or
        not, and what leaves may be gone or not.
        """
        kept_bytes, leaving_bytes = self.index.stored_bytes + self.doomed_bytes, self.leaving_bytes
        return Account(kept_bytes, self.used_bytes + leaving_bytes, leaving_bytes, self.freed_bytes)

    def look(self, space: Space, before: Account, now: float, short_bytes: int = 0) -> None:
        """Take note of what the file system has left. before: the account when it was asked.
        short_bytes: of a write that did not fit.

        So the room is known between two bounds, and what was known of it is believed within them.
        """
        if not space.total_bytes:
            return
        headroom_bytes = min(space.total_bytes // _HEADROOM_PART, _MAX_HEADROOM_BYTES)
        spare_bytes = space.free_bytes - headroom_bytes
        after = self.account()
        freed_bytes = after.freed_bytes - before.freed_bytes
        least_bytes = before.kept_bytes - freed_bytes - after.leaving_bytes + spare_bytes
        most_bytes = after.most_bytes + freed_bytes + spare_bytes
        self._room_bytes = min(max(self._room_bytes - short_bytes, least_bytes), most_bytes)
        self._limit()
        if not short_bytes:
            low = space.free_bytes < headroom_bytes // 2
            if low and self._low and self._removed:
                self.vain_until = now + VAIN_REST_S
            elif space.free_bytes >= headroom_bytes:
                self.vain_until = float("-inf")
            self._low, self._removed = low, False

    def found(self, taken_bytes: int) -> None:
        """A file that stood there before, and counted as taken by others, is ours."""
        self._room_bytes += taken_bytes
        self._limit()

    def shrink(self, fits_bytes: int, until: float) -> None:
        """The disk has less room than it says: use what fits until then (on the store's clock)."""
        self.full_until = until
        self._bound_bytes = min(self.capacity_bytes, fits_bytes)
        self._limit()

    def regrow(self, now: float) -> None:
        """Go back to the whole share once the time of a shrink is over."""
        if self._bound_bytes < self._share_bytes and now >= self.full_until:
            self._bound_bytes = self._share_bytes
            self._limit()

    def _limit(self) -> None:
        self.capacity_bytes = max(0, min(self._bound_bytes, self._room_bytes))
        self.index.capacity_bytes = self.capacity_bytes

    def fail(self, why: str) -> list[bytes]:
        """Take the device out of use for good and forget what stood on it.

        Returns the forgotten ids.
        """
        lost = self.index.ids()
        self.failure = why
        self.index = Index(self._policy, self.capacity_bytes)
        return lost

    def make_room(
        self, need_bytes: int, besides_bytes: int, stays: Callable[[bytes], bool], now: float
    ) -> list[tuple[bytes, int]] | None:
        """Choose what must leave for `need_bytes` more: (id, bytes) pairs, already out of the
        index.

        besides_bytes: what is taken besides `used_bytes`, for a while. `stays` says of a block that
        it must not be chosen. None: it cannot fit, and nothing was chosen in vain.
        """
        if need_bytes + self.reserved_bytes + self.doomed_bytes > self.capacity_bytes:
            return None
        victims = []
        goal_bytes = self.capacity_bytes - need_bytes - besides_bytes
        while self.used_bytes > goal_bytes and now >= self.vain_until:
            slot = self.index.victim(lambda slot: stays(self.index.block_id(slot)))
            if slot is None:
                break
            victims.append((self.index.block_id(slot), self.index.size_bytes(slot)))
            self.index.evicted(slot)
        return victims

    def gone(self, block_id: bytes) -> None:
        """The file of a block that was leaving is removed."""
        size_bytes = self.leaving.pop(block_id, 0)
        self.freed_bytes += size_bytes
        self._removed = self._removed or size_bytes > 0
