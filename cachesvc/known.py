"""Blocks that hot reads asked for, worked out once, and found by how such requests begin.

Rules: how they begin is wire/lone.py's. A block is remembered once there was something to send of
it, up to MAX_BYTES; what was not found again goes first (CLOCK). What is remembered says what the
block is, never that it is stored. Any thread may call; `get` takes no lock.
"""

from __future__ import annotations

from cachesvc.core.blocks import BlockRef
from cachesvc.core.errors import CacheError
from cachesvc.core.types import Geometry, ObjectVersion
from cachesvc.kept import Kept
from cachesvc.wire import lone

MAX_BYTES = 8 << 20
_ENTRY_BYTES = 1024  # of memory that a block takes beside what it is found by

Key = tuple[bytes | ObjectVersion, int]  # how its requests begin, or its version; and the index


class KnownBlock:
    """What a block says of itself worked out, and how the answers of its version begin.

    size_bytes: of memory. used: found again since it was last looked at for eviction. shaped: of
    the small answer that was made last the length, the epoch, and what stands around start and
    checksum.
    """

    __slots__ = (
        "beginning", "block", "id", "length_bytes", "object_end", "shaped", "size_bytes", "start",
        "used",
    )  # fmt: skip

    def __init__(self, block: BlockRef, beginning: bytes, size_bytes: int) -> None:
        self.block = block
        self.id = block.id
        self.start = block.start
        self.length_bytes = block.length_bytes
        self.object_end = block.version.size_bytes
        self.beginning = beginning
        self.shaped: tuple[int, int, lone.Shape | None] = 0, 0, None
        self.size_bytes = size_bytes
        self.used = False


class KnownBlocks:
    """Those of one node."""

    def __init__(self, geometry: Geometry, max_bytes: int = MAX_BYTES) -> None:
        self._geometry = geometry
        self._kept: Kept[Key, KnownBlock] = Kept(max_bytes)
        # what is remembered under a key, or None; who finds it sets its `used`
        self.get, self.keep = self._kept.get, self._kept.keep

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def held_bytes(self) -> int:
        return self._kept.size_bytes

    def worked_out(self, key: Key) -> KnownBlock | None:
        """The block of a version that can be cached; None: the request is wrong, or bypasses, or
        has more in it than it needs.
        """
        named, index = key
        if isinstance(named, ObjectVersion):
            size_bytes = 2 * len(named.name.key) + _ENTRY_BYTES
            return KnownBlock(BlockRef(named, index, self._geometry), b"", size_bytes)
        try:
            version = lone.version_of(named)
            block, beginning = BlockRef(version, index, self._geometry), lone.answer_start(version)
        except (CacheError, ValueError):
            return None
        # in the key, and unpacked, and in how its answers begin
        return KnownBlock(block, beginning, 3 * len(named) + _ENTRY_BYTES)
