"""A read of one range of a version that is named, and its answer in one segment, by hand.

Story: that is what a hot small read is on the wire, and making messages of it costs more than
reading the bytes. All that stands before the range is the same bytes in every request for a version
(`request_start`); the range and the epoch behind it have a fixed size, and so has the start in an
answer.

Rules: what is packed here is byte for byte what codec.py packs; what is split here is what protobuf
parses; anything of another shape is None and goes through codec.py. Tests hold both to that
(tests/property/test_lone.py). Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache, lru_cache

from cachesvc.core.errors import ProtocolError
from cachesvc.core.types import ObjectVersion, Source
from cachesvc.wire import codec
from cachesvc.wire.frame import PREFIX_BYTES, Kind
from cachesvc.wire.v1 import cache_pb2
from cachesvc.wire.varint import pack_varint

# What stands before the start, behind it and behind the checksums; and what packs the start, what
# is behind it, and one checksum
Shape = tuple[bytes, bytes, bytes, Callable[[int, bytes, int], bytes]]

_PREFIX = struct.Struct(">4sIQ")
_READ = b"CS" + bytes((Kind.READ, 0))
_ANSWER = b"CS" + bytes((Kind.READ_ANSWER, 0))
_RANGE = b"\x1a\x12\x09"  # a range, of 18 bytes, and its start
_END, _EPOCH = 0x11, 0x39
_WANTED = struct.Struct("<QBQBQ")  # start, _END, end, _EPOCH, epoch
_WANTED_BYTES = _WANTED.size
_split, _packed = _WANTED.unpack_from, _WANTED.pack
_NUMBER = struct.Struct("<Q").pack
_DISK = b"\x18" + bytes((Source.DISK,)) + b"\x22"
_SHAPE_COUNT = 1024  # shapes of answers that are remembered


def request_start(version: ObjectVersion) -> bytes:
    """How the whole frame of every such request for a version begins: all before the start."""
    identity = cache_pb2.ReadRequest(
        object=cache_pb2.ObjectName(bucket=version.name.bucket, key=version.name.key),
        version=codec.pack_version(version),
    ).SerializeToString()
    header_bytes = len(identity) + len(_RANGE) + _WANTED_BYTES
    return b"".join((_PREFIX.pack(_READ, header_bytes, 0), identity, _RANGE))


def version_of(beginning: bytes) -> ObjectVersion:
    """The version of which this is the `request_start`.

    Raises: ProtocolError, InvalidKey.
    """
    if not _two_fields(beginning):
        raise ProtocolError("not how a read of one range of a named version begins")
    identity = beginning[PREFIX_BYTES : -len(_RANGE)]
    version = codec.unpack_read(codec.parse(cache_pb2.ReadRequest, identity + b"\x1a\x00")).version
    if version is None or request_start(version) != beginning:
        raise ProtocolError("not as protobuf packs a read of one range of a named version")
    return version


def _two_fields(beginning: bytes) -> bool:
    """Whether two fields stand between prefix and range, as it seems. Other reads end like one of a
    range, too, and are to be told from it without being parsed.
    """
    try:  # a length has one byte or two; of more, what follows is not where it is looked for
        low = beginning[17]
        named = 18 + low if low < 0x80 else 19 + (low & 0x7F | beginning[18] << 7)
        low = beginning[named + 1]
        border = named + (2 + low if low < 0x80 else 3 + (low & 0x7F | beginning[named + 2] << 7))
    except IndexError:
        return False
    two_tags = beginning[16] == 0x0A and beginning[named] == 0x12
    return two_tags and border == len(beginning) - len(_RANGE)


def pack_read(beginning: bytes, start: int, end: int, epoch: int) -> bytes:
    """The frame of a request for `[start, end)`. beginning: `request_start` of the version."""
    return beginning + _packed(start, _END, end, _EPOCH, epoch)


def split_read(frame: bytes) -> tuple[bytes, int, int] | None:
    """What may be the `request_start` of a version (`version_of` knows), start and end of a
    request's whole frame. None: it is of another shape.
    """
    try:
        start, end_tag, end, epoch_tag, _ = _split(frame, len(frame) - _WANTED_BYTES)
    except struct.error:
        return None
    return (frame[:-_WANTED_BYTES], start, end) if end_tag == _END and epoch_tag == _EPOCH else None


def answer_start(version: ObjectVersion) -> bytes:
    """How the header of every such answer of a version begins.

    Raises:
        ValueError: it has no strong ETag.
    """
    if not version.cacheable:
        raise ValueError(f"{version} has no strong ETag: it is not answered in segments")
    return cache_pb2.ReadHeader(
        version=codec.pack_version(version), cacheable=True
    ).SerializeToString()


def answer_shape(beginning: bytes, length_bytes: int, sums_bytes: int, epoch: int) -> Shape:
    """What stands around start and checksums in prefix and header of an answer from the disk, of
    `length_bytes`, at least 1. beginning: `answer_start` of the version.
    """
    prefix, opening, rest, after = _sized(len(beginning), length_bytes, sums_bytes, epoch)
    return b"".join((prefix, beginning, opening)), rest, after, _packer(len(rest))


def answer_around(shape: Shape, start: int) -> tuple[bytes, bytes]:
    """What stands before and behind the checksums in such an answer from `start` on."""
    before, rest, after, _ = shape
    return b"".join((before, _NUMBER(start), rest)), after


def answer(shape: Shape, start: int, digest: int, body: bytes) -> bytes:
    """The whole frame of such an answer: a body, its checksum, and what stands around them."""
    before, rest, after, packed = shape
    return b"".join((before, packed(start, rest, digest), after, body))


@cache
def _packer(rest_bytes: int) -> Callable[[int, bytes, int], bytes]:
    return struct.Struct(f"<Q{rest_bytes}sQ").pack


@lru_cache(_SHAPE_COUNT)
def _sized(
    beginning_bytes: int, length_bytes: int, sums_bytes: int, epoch: int
) -> tuple[bytes, bytes, bytes, bytes]:
    """Prefix, what stands before and behind the start, and behind the checksums: the same for all
    answers of such sizes.
    """
    rest = b"\x10" + pack_varint(length_bytes) + _DISK + pack_varint(sums_bytes)
    opening = b"\x22" + pack_varint(9 + len(rest) + sums_bytes) + b"\x09"
    after = b"\x28\x01\x39" + _NUMBER(epoch) if epoch else b"\x28\x01"
    header_bytes = beginning_bytes + len(opening) + 8 + len(rest) + sums_bytes + len(after)
    return _PREFIX.pack(_ANSWER, header_bytes, length_bytes), opening, rest, after
