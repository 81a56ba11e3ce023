"""From byte ranges to blocks and pages, and from a block to its name.

Story: a read of `[start, end)` becomes one Slice per block it touches (`slices`); within a block,
bytes become pages (`pages_of`); page sets are int bitmaps, bit i for page i, because 128 bits fit
everywhere and set algebra is one instruction. A block's id is keyed BLAKE2b-128 of its full
identity: it names the file and keys the index, and no object key ever becomes a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from cachesvc.core.types import ByteRange, Geometry, ObjectName, ObjectVersion

_ID_KEY = b"cachesvc block id, format 1"


class BlockRef:
    """One block of one object version.

    Equal and hashed by `id`, 16 bytes. `length_bytes` is the block's real length: the last block of
    an object is short.
    """

    __slots__ = ("__dict__", "geometry", "index", "version")

    def __init__(self, version: ObjectVersion, index: int, geometry: Geometry) -> None:
        if index < 0 or index * geometry.block_bytes >= version.size_bytes:
            raise ValueError(f"{version.name} ({version.size_bytes} bytes) has no block {index}")
        self.version = version
        self.index = index
        self.geometry = geometry

    @cached_property
    def id(self) -> bytes:
        """Keyed BLAKE2b-128 over every field of the identity, each with its length before it."""
        version = self.version
        digest = blake2b(digest_size=16, key=_ID_KEY)
        for field in (version.name.bucket, version.name.key, version.etag):
            raw = field.encode()
            digest.update(len(raw).to_bytes(4, "big") + raw)
        for number in (
            version.size_bytes,
            self.geometry.block_bytes,
            self.geometry.page_bytes,
            self.index,
        ):
            digest.update(number.to_bytes(8, "big"))
        return digest.digest()

    @property
    def start(self) -> int:
        """Where the block begins in its object, in bytes."""
        return self.index * self.geometry.block_bytes

    @property
    def length_bytes(self) -> int:
        return min(self.geometry.block_bytes, self.version.size_bytes - self.start)

    @property
    def page_count(self) -> int:
        return -(-self.length_bytes // self.geometry.page_bytes)

    @property
    def all_pages(self) -> int:
        return (1 << self.page_count) - 1

    def page_length_bytes(self, page: int) -> int:
        """The real length of a page: the last one of an object is short."""
        return min(self.geometry.page_bytes, self.length_bytes - page * self.geometry.page_bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockRef) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"block {self.index} of {self.version.name} {self.version.etag}"


def name_number(name: ObjectName) -> int:
    """A 64-bit hash of an object's name, never 0: as good as the name to say that something of it
    is not here.
    """
    raw = f"{name.bucket}/{name.key}".encode()  # a bucket has no slash
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "big") or 1


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a read that falls into one block: `[start, end)` counts from the block's own
    beginning.
    """

    block: BlockRef
    start: int
    end: int

    @property
    def length_bytes(self) -> int:
        return self.end - self.start

    @property
    def object_start(self) -> int:
        """Where the slice begins in its object, in bytes."""
        return self.block.start + self.start

    @property
    def pages(self) -> int:
        """The pages that the slice touches, as a bitmap."""
        return pages_of(self.start, self.end, self.block.geometry.page_bytes)

    @property
    def whole(self) -> bool:
        """Whether it has all of every page that it touches."""
        page_bytes = self.block.geometry.page_bytes
        whole_end = self.end % page_bytes == 0 or self.end == self.block.length_bytes
        return whole_end and self.start % page_bytes == 0

    def pieces(self) -> list[tuple[int, int, int, bool]]:
        """The slice cut at page borders: (start, end, page, whether that is the whole page)."""
        page_bytes = self.block.geometry.page_bytes
        return [
            (start, end, page, end - start == self.block.page_length_bytes(page))
            for start, end in cuts(self.start, self.end, page_bytes)
            for page in (start // page_bytes,)
        ]

    def sections(self) -> list[tuple[int, int, int, bool]]:
        """Like `pieces`, but all whole pages, which are adjacent, in one."""
        page_bytes = self.block.geometry.page_bytes
        first = -(-self.start // page_bytes) * page_bytes
        beyond = self.end
        if beyond != self.block.length_bytes:
            beyond = beyond // page_bytes * page_bytes
        if first >= beyond:
            return self.pieces()
        borders = ((self.start, first, False), (first, beyond, True), (beyond, self.end, False))
        return [
            (start, end, start // page_bytes, whole) for start, end, whole in borders if start < end
        ]

    def run(self, present: int) -> Slice | None:
        """What of the slice can be had at its start: up to the first page that is not present."""
        page_bytes = self.block.geometry.page_bytes
        page = self.start // page_bytes
        first, beyond = next(runs(present >> page), (1, 1))
        if first != 0:
            return None
        return Slice(self.block, self.start, min(self.end, (page + beyond) * page_bytes))


def slices(version: ObjectVersion, wanted: ByteRange, geometry: Geometry) -> Iterator[Slice]:
    """Cut a range at block borders, in order. An empty range has no slices.

    `wanted` must lie within the object: clamp first (`types.clamp`).
    """
    assert wanted.end <= version.size_bytes, f"{wanted} reaches beyond {version}"
    position = wanted.start
    while position < wanted.end:
        block = BlockRef(version, position // geometry.block_bytes, geometry)
        end = min(wanted.end, block.start + block.length_bytes)
        yield Slice(block, position - block.start, end - block.start)
        position = end


def pages_of(start: int, end: int, page_bytes: int) -> int:
    """The bitmap of the pages that `[start, end)` touches; empty for an empty range."""
    if end <= start:
        return 0
    first, beyond = start // page_bytes, -(-end // page_bytes)
    return ((1 << (beyond - first)) - 1) << first


def runs(pages: int) -> Iterator[tuple[int, int]]:
    """The runs `[first, beyond)` of adjacent set bits of a bitmap, in order."""
    base = 0
    while pages:
        skip = (pages & -pages).bit_length() - 1
        pages >>= skip
        length = (~pages & (pages + 1)).bit_length() - 1
        yield base + skip, base + skip + length
        pages >>= length
        base += skip + length


def cuts(start: int, end: int, page_bytes: int) -> Iterator[tuple[int, int]]:
    """`[start, end)` cut at page borders: what each checksum of a segment covers."""
    while start < end:
        beyond = min(end, (start // page_bytes + 1) * page_bytes)
        yield start, beyond
        start = beyond
