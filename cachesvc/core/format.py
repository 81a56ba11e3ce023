"""The trailer of a block file: who the block is, which pages it has, and what they must hash to.

A block file is its data at offset 0 (sparse where pages are missing), padded to a multiple of 4,096
bytes, then this trailer of exactly 4,096 bytes, so that the trailer of any file is found from the
file's size alone. docs/format.md is the specification; this file is its only implementation.

Rules: little endian; a trailer is accepted only if its checksum, magic, format version and geometry
are right, and the caller then compares the identity (`Trailer.block.id`) with the name it looked
for. Anything else is FormatError, and the block a miss: no field of a trailer that fails its
checksum is ever used.
"""

from __future__ import annotations

import struct

from xxhash import xxh3_64_intdigest

from cachesvc.core.blocks import BlockRef
from cachesvc.core.types import PAGES_PER_BLOCK, Geometry, ObjectName, ObjectVersion

TRAILER_BYTES = 4096
FORMAT_VERSION = 1
CHECKSUM_BYTES = 8

_MAGIC = b"cachesvc"
# magic, format version, bucket/key/etag lengths, page_bytes, block_bytes, extent bounds, size,
# index, modified, present
_HEAD = struct.Struct("<8sHHHHQQQQQQq16s")
_CHECKSUMS_BYTES = PAGES_PER_BLOCK * CHECKSUM_BYTES
_SEAL = struct.Struct("<Q")


class FormatError(ValueError):
    """The bytes are no trailer of this format, or a damaged one."""


def trailer_offset(block: BlockRef) -> int:
    """Where the trailer of a block's file begins, in bytes."""
    return -(-block.length_bytes // TRAILER_BYTES) * TRAILER_BYTES


def checksum(data: bytes | bytearray | memoryview) -> bytes:
    """xxh3-64 of a page (or a part of one), 8 bytes little endian, as stored and as sent."""
    return xxh3_64_intdigest(data).to_bytes(CHECKSUM_BYTES, "little")


class Trailer:
    """What a block file says of itself.

    block: the full identity. present: bitmap of pages that are whole and may be served. A page's
    checksum is meaningful only while its bit is set.
    """

    __slots__ = ("_checksums", "block", "present")

    def __init__(self, block: BlockRef, present: int = 0, checksums: bytes = b"") -> None:
        assert present & ~block.all_pages == 0, f"{block} has no such pages: {present:x}"
        self.block = block
        self.present = present
        self._checksums = bytearray(checksums or _CHECKSUMS_BYTES)

    def checksums(self, first_page: int, beyond_page: int) -> bytes:
        """The checksums of pages `[first, beyond)`, 8 bytes each."""
        return bytes(self._checksums[first_page * CHECKSUM_BYTES : beyond_page * CHECKSUM_BYTES])

    def add(self, first_page: int, checksums: bytes) -> int:
        """Take in adjacent new pages; a page that is present already keeps its checksum.

        Returns the new bits.
        """
        added = 0
        for offset in range(0, len(checksums), CHECKSUM_BYTES):
            page = first_page + offset // CHECKSUM_BYTES
            if not self.present >> page & 1:
                start = page * CHECKSUM_BYTES
                self._checksums[start : start + CHECKSUM_BYTES] = checksums[
                    offset : offset + CHECKSUM_BYTES
                ]
                added |= 1 << page
        assert added & ~self.block.all_pages == 0, f"{self.block} has no such pages: {added:x}"
        self.present |= added
        return added

    def encode(self) -> bytes:
        """The trailer as it stands in the file: exactly TRAILER_BYTES."""
        version, geometry = self.block.version, self.block.geometry
        bucket, key, etag = (
            text.encode() for text in (version.name.bucket, version.name.key, version.etag)
        )
        head = _HEAD.pack(
            _MAGIC, FORMAT_VERSION, len(bucket), len(key), len(etag),
            geometry.page_bytes, geometry.block_bytes,
            geometry.extent_min_bytes, geometry.extent_max_bytes,
            version.size_bytes, self.block.index, version.last_modified_ms,
            self.present.to_bytes(16, "little"),
        )  # fmt: skip
        body = b"".join((head, self._checksums, bucket, key, etag)).ljust(TRAILER_BYTES - 8, b"\0")
        assert len(body) == TRAILER_BYTES - _SEAL.size, f"the trailer of {self.block} overflows"
        return body + _SEAL.pack(xxh3_64_intdigest(body))


def decode(raw: bytes) -> Trailer:
    """The trailer that `raw` holds.

    Raises:
        FormatError: it holds none, or one that fails its checksum or contradicts itself.
    """
    if len(raw) != TRAILER_BYTES:
        raise FormatError(f"a trailer has {TRAILER_BYTES} bytes, not {len(raw)}")
    body = raw[: -_SEAL.size]
    if _SEAL.unpack(raw[-_SEAL.size :])[0] != xxh3_64_intdigest(body):
        raise FormatError("the trailer fails its checksum")
    head = _HEAD.unpack_from(body)
    if head[0] != _MAGIC or head[1] != FORMAT_VERSION:
        raise FormatError(f"magic {head[0]!r}, format version {head[1]}: not ours")
    lengths, numbers, present = head[2:5], head[5:12], int.from_bytes(head[12], "little")
    page_bytes, block_bytes, extent_min, extent_max, size_bytes, index, modified = numbers
    position = _HEAD.size + _CHECKSUMS_BYTES
    texts = []
    try:
        for length in lengths:
            texts.append(body[position : position + length].decode())
            position += length
        geometry = Geometry(block_bytes, page_bytes, extent_min, extent_max)
        version = ObjectVersion(ObjectName(texts[0], texts[1]), texts[2], size_bytes, modified)
        block = BlockRef(version, index, geometry)
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(f"the trailer contradicts itself: {error}") from error
    if present & ~block.all_pages:
        raise FormatError(f"the trailer has pages that {block} cannot have")
    return Trailer(block, present, body[_HEAD.size : _HEAD.size + _CHECKSUMS_BYTES])
