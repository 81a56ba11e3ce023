"""The value types that every part shares: what is read, in which version, under which geometry.

Rules: frozen, slotted, validated when made; ranges are half open `[start, end)`; units stand last
in names. No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from cachesvc.core.errors import InvalidKey, RangeError

MAX_KEY_BYTES = 1024  # S3's own limit, in UTF-8
MAX_BUCKET_BYTES = 255
MAX_ETAG_BYTES = 256
_SHOWN_COUNT = 100  # characters of what was refused
_PARSED_COUNT = 1024  # names that need not be parsed again
MAX_OBJECT_BYTES = 1 << 48
PAGES_PER_BLOCK = 128  # the trailer of a block file has room for this many

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]+"')  # RFC 9110, 8.8.3, in ASCII


@dataclass(frozen=True, slots=True, order=True)
class ObjectName:
    """A bucket and a key, byte for byte as the origin knows them.

    Raises:
        InvalidKey: bucket or key is empty, too long, holds NUL, or is not encodable as UTF-8.
    """

    bucket: str
    key: str

    def __post_init__(self) -> None:
        _check_name("bucket", self.bucket, MAX_BUCKET_BYTES, self)
        _check_name("key", self.key, MAX_KEY_BYTES, self)
        if "/" in self.bucket:
            raise InvalidKey(f"bucket {self.bucket!r} holds a '/': no S3 bucket can have that name")

    @classmethod
    def parse(cls, uri: str) -> ObjectName:
        """`s3://bucket/key` as a name.

        Everything behind the bucket's slash is the key, unescaped, as it stands.
        """
        if not isinstance(uri, str):
            raise InvalidKey(
                f"{_shown(uri)} is no object URI, but {type(uri).__name__}: write s3://bucket/key"
            )
        return _parsed(uri)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@lru_cache(_PARSED_COUNT)
def _parsed(uri: str) -> ObjectName:
    scheme, separator, rest = uri.partition("://")
    bucket, slash, key = rest.partition("/")
    if scheme != "s3" or not separator or not slash:
        raise InvalidKey(f"{_shown(uri)} is not an object URI: write s3://bucket/key")
    return ObjectName(bucket, key)


def _check_name(what: str, value: str, limit_bytes: int, name: ObjectName) -> None:
    try:
        length_bytes = len(value.encode())
    except UnicodeEncodeError as error:
        why = f"is not encodable as UTF-8: {error.reason}"
        raise InvalidKey(f"{what} {_shown(value)} {why}") from error
    if not value:
        raise InvalidKey(f"{_shown(str(name))}: the {what} is empty: write s3://bucket/key")
    if length_bytes > limit_bytes:
        raise InvalidKey(
            f"{what} {_shown(value)} has {length_bytes} bytes; {limit_bytes} is the most"
        )
    if "\0" in value:
        why = "holds a NUL character: no S3 object can have that name"
        raise InvalidKey(f"{what} {_shown(value)} {why}")


def _shown(given: object) -> str:
    """As it was given, as far as a message bears it."""
    text = repr(given[:_SHOWN_COUNT] if isinstance(given, str) else given)
    cut = len(text) > _SHOWN_COUNT or (isinstance(given, str) and len(given) > _SHOWN_COUNT)
    return f"{text[:_SHOWN_COUNT]}..." if cut else text


@dataclass(frozen=True, slots=True, order=True)
class ObjectVersion:
    """One immutable version of an object: the unit that bytes are never mixed across.

    etag: with its quotes, as the origin sent it. size_bytes: of the whole object. last_modified_ms:
    Unix time; no part of the identity.
    """

    name: ObjectName
    etag: str
    size_bytes: int
    last_modified_ms: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.size_bytes <= MAX_OBJECT_BYTES:
            raise ValueError(f"{self.name}: size_bytes is {self.size_bytes}")
        if len(self.etag.encode()) > MAX_ETAG_BYTES:
            raise ValueError(f"{self.name}: the ETag has more than {MAX_ETAG_BYTES} bytes")

    @property
    def cacheable(self) -> bool:
        """Whether the ETag is strong, so that If-Match can hold an answer to this version."""
        return _STRONG_ETAG.fullmatch(self.etag) is not None

    def same_bytes(self, other: ObjectVersion) -> bool:
        """Whether two values name the same version (last_modified_ms aside)."""
        return (self.name, self.etag, self.size_bytes) == (other.name, other.etag, other.size_bytes)


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """Half open `[start, end)`, in bytes of an object.

    Raises:
        RangeError: negative or reversed.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.end < self.start:
            raise RangeError(
                f"range [{self.start}, {self.end}) is negative or reversed: "
                "give 0 <= start <= end, in bytes"
            )

    @property
    def length_bytes(self) -> int:
        return self.end - self.start


def clamp(name: ObjectName, start: int, end: int | None, size_bytes: int) -> ByteRange:
    """`[start, end)` cut to the object, as a slice of a file would be; end None is the end of the
    object.

    A range that begins exactly at the end is empty; one that begins beyond it is an error, as S3's
    416 is.
    """
    if start < 0 or (end is not None and end < start):
        raise RangeError(
            f"{name}: range [{start}, {end}) is negative or reversed: "
            "give 0 <= start <= end, in bytes"
        )
    if start > size_bytes:
        raise RangeError(
            f"{name}: range begins at byte {start}, but the object has {size_bytes} bytes"
        )
    return ByteRange(start, size_bytes if end is None else min(end, size_bytes))


@dataclass(frozen=True, slots=True)
class Geometry:
    """How objects are cut. Equal on every node and client of a cluster; it travels in Welcome.

    block_bytes: the unit of ownership, storage and eviction. page_bytes: of presence and checksum;
    at most PAGES_PER_BLOCK pages a block. extent_min_bytes / extent_max_bytes: bounds of one origin
    GET.
    """

    block_bytes: int = 8 << 20
    page_bytes: int = 64 << 10
    extent_min_bytes: int = 1 << 20
    extent_max_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        if min(self.block_bytes, self.page_bytes, self.extent_min_bytes) <= 0:
            raise ValueError(f"{self}: every size must be positive")
        if self.block_bytes % self.page_bytes:
            raise ValueError(
                f"block_bytes {self.block_bytes} is no multiple of page_bytes {self.page_bytes}"
            )
        if self.block_bytes // self.page_bytes > PAGES_PER_BLOCK:
            raise ValueError(
                f"a block of {self.block_bytes} bytes has more than {PAGES_PER_BLOCK} pages"
            )
        if self.extent_min_bytes % self.page_bytes or self.block_bytes % self.extent_min_bytes:
            raise ValueError(
                f"extent_min_bytes {self.extent_min_bytes} does not tile blocks in whole pages"
            )
        if self.extent_max_bytes < self.extent_min_bytes or self.extent_max_bytes % self.page_bytes:
            raise ValueError(
                f"extent_max_bytes {self.extent_max_bytes} is below extent_min_bytes, "
                "or cuts a page"
            )

    @property
    def pages_per_block(self) -> int:
        return self.block_bytes // self.page_bytes


class Source(IntEnum):
    """Where the bytes of an answer came from. The numbers are those of the wire."""

    DISK = 1
    JOINED = 2
    PEER = 3
    ORIGIN = 4
    BYPASS = 5
