"""Which blocks are stored on a device, how large they are, and which should leave next.

Rules: made for a million blocks at well under 400 bytes each, policy included, and for a garbage
collector that never stalls: a block is a number, its slot, into a few flat arrays, and no object of
its own. The index knows neither files nor time; whoever calls it holds the store's lock and keeps
it and the disk in step. Calls are short; only `ids` and a `victim` under a `protect` that holds for
nearly all blocks walk far.

Story: `add` gives a block a slot, `get` finds it, `touch` tells the policy of a hit. When the store
wants space it asks for the `victim`, unlinks the file and confirms with `evicted`; a block that
goes for any other reason is `remove`d. A slot number means a block only until that block goes. Of
blocks numbered 0 it also keeps whose they are, so that a node can tell that it has `none_of` an
object without knowing its version.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from cachesvc.core.eviction import Lru, Policy, Protect, S3Fifo
from cachesvc.core.queues import grow
from cachesvc.core.tally import Tally

ID_BYTES = 16
POLICIES: dict[str, Callable[[int], Policy]] = {"s3fifo": S3Fifo, "lru": Lru}
_FREE = (1 << 32) - 1  # in the column of sizes: what grow's filler reads as
_SIZE_LIMIT_BYTES = _FREE


class Index:
    """The stored blocks, in memory.

    capacity_bytes: what the policy aims for; the index itself takes in whatever it is given.

    Raises:
        ValueError: no policy has that name, or the capacity is negative.
    """

    def __init__(self, policy_name: str, capacity_bytes: int) -> None:
        if policy_name not in POLICIES:
            raise ValueError(f"no eviction policy {policy_name!r}: choose {' or '.join(POLICIES)}")
        self._policy = POLICIES[policy_name](0)
        self.capacity_bytes = capacity_bytes
        self.stored_bytes = 0
        self._slot_of: dict[bytes, int] = {}
        self._ids = bytearray()
        self._sizes = array("I")
        self._free = array("i")
        self._first_of = array("Q")  # by slot: name_number of a block 0, else 0
        self._names = Tally()

    @property
    def capacity_bytes(self) -> int:
        return self._policy.capacity_bytes

    @capacity_bytes.setter
    def capacity_bytes(self, capacity_bytes: int) -> None:
        if capacity_bytes < 0:
            raise ValueError(f"capacity_bytes is {capacity_bytes}: give 0 or more")
        self._policy.capacity_bytes = capacity_bytes

    def __len__(self) -> int:
        return len(self._slot_of)

    def get(self, block_id: bytes) -> int | None:
        """The slot of a block, or None. A look, not a hit: see `touch`."""
        return self._slot_of.get(block_id)

    def touch(self, slot: int) -> None:
        """Tell the policy that a block was hit."""
        self._policy.touched(slot)

    def none_of(self, name_number: int) -> bool:
        """Whether surely no version of the object has its block 0 here."""
        return name_number not in self._names

    def add(self, block_id: bytes, size_bytes: int, first_of: int = 0) -> int:
        """Take in a block that is not in the index yet; its slot.

        first_of: of a block numbered 0, the object's `blocks.name_number`.
        """
        assert len(block_id) == ID_BYTES, f"{block_id!r} is no block id"
        assert block_id not in self._slot_of, f"block {block_id.hex()} is stored already"
        assert 0 <= size_bytes < _SIZE_LIMIT_BYTES, f"size_bytes is {size_bytes}"
        slot = self._free.pop() if self._free else self._fresh_slot()
        self._sizes[slot] = size_bytes
        self._ids[slot * ID_BYTES : (slot + 1) * ID_BYTES] = block_id
        self._slot_of[block_id] = slot
        self._first_of[slot] = first_of
        if first_of:
            self._names.add(first_of)
        self.stored_bytes += size_bytes
        self._policy.inserted(slot, block_id, size_bytes)
        return slot

    def _fresh_slot(self) -> int:
        """A slot never used before: none is free, so the used ones are exactly 0..len - 1."""
        slot = len(self._slot_of)
        if slot >= len(self._sizes):
            grow(self._sizes, slot, filler=b"\xff")
            grow(self._first_of, slot)
            self._ids.extend(bytes(len(self._sizes) * ID_BYTES - len(self._ids)))
        return slot

    def resize(self, slot: int, size_bytes: int) -> None:
        """Take note that a block takes more or less space than before."""
        assert self._sizes[slot] != _FREE, f"slot {slot} is free"
        assert 0 <= size_bytes < _SIZE_LIMIT_BYTES, f"size_bytes is {size_bytes}"
        old_bytes = self._sizes[slot]
        self._sizes[slot] = size_bytes
        self.stored_bytes += size_bytes - old_bytes
        self._policy.resized(slot, old_bytes, size_bytes)

    def remove(self, slot: int) -> None:
        """Forget a block that is gone for another reason than eviction."""
        self._drop(slot)
        self._policy.removed(slot)

    def evicted(self, slot: int) -> None:
        """Forget a block that was the victim; the policy may remember that it was here."""
        block_id = self._drop(slot)
        self._policy.evicted(slot, block_id)

    def _drop(self, slot: int) -> bytes:
        assert self._sizes[slot] != _FREE, f"slot {slot} is free"
        block_id = self.block_id(slot)
        del self._slot_of[block_id]
        if self._first_of[slot]:
            self._names.remove(self._first_of[slot])
        self.stored_bytes -= self._sizes[slot]
        self._sizes[slot] = _FREE
        self._free.append(slot)
        return block_id

    def victim(self, protect: Protect | None = None) -> int | None:
        """The slot that should leave next, or None if there is none that `protect` lets go.

        Removes nothing: the caller unlinks the file and then calls `evicted`.
        """
        return self._policy.victim(protect)

    def block_id(self, slot: int) -> bytes:
        return bytes(self._ids[slot * ID_BYTES : (slot + 1) * ID_BYTES])

    def size_bytes(self, slot: int) -> int:
        return self._sizes[slot]

    def ids(self) -> list[bytes]:
        """All blocks, in no order."""
        return list(self._slot_of)
