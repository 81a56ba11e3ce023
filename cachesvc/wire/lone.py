"""A read of one range of a version that is named, and its answer in one segment, by hand.

Story: that is what a hot small read is on the wire, and making messages of it costs more than
reading the bytes. The object and its version stand in the first two fields (`identity`), the same
bytes in every request for them; what follows has a fixed shape.

Rules: what is packed here is byte for byte what codec.py packs; what is split here is what protobuf
parses; anything of another shape is None and goes through codec.py. Tests hold both to that
(tests/property/test_lone.py). Pure.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from google.protobuf.message import DecodeError

from cachesvc.core.types import ObjectVersion, Source
from cachesvc.wire import codec
from cachesvc.wire.frame import PREFIX_BYTES, Kind
from cachesvc.wire.v1 import cache_pb2
from cachesvc.wire.varint import pack_varint

_PREFIX = struct.Struct(">4sIQ")
_READ = b"CS" + bytes((Kind.READ, 0))
_ANSWER = b"CS" + bytes((Kind.READ_ANSWER, 0))
_EPOCH = struct.Struct("<Q")
_DISK = b"\x18" + bytes((Source.DISK,)) + b"\x22"
_SHAPE_COUNT = 1024  # shapes of answers that are remembered
_LONGEST = 1 << 14  # bytes of a request: a length of two bytes ends within it, or is none
_NO_PLACE = 1 << 63  # an end from here on is none: all that there is
_range = cache_pb2.Range.FromString


def identity_of(version: ObjectVersion) -> bytes:
    """How every request for a version begins: its first two fields, object and version."""
    return cache_pb2.ReadRequest(
        object=cache_pb2.ObjectName(bucket=version.name.bucket, key=version.name.key),
        version=codec.pack_version(version),
    ).SerializeToString()


def version_of(identity: bytes) -> ObjectVersion:
    """The version that an identity names.

    Raises: ProtocolError, InvalidKey.
    """
    request = codec.unpack_read(codec.parse(cache_pb2.ReadRequest, identity + b"\x1a\x00"))
    assert request.version is not None, "an identity has both fields"
    return request.version


def pack_read(identity: bytes, start: int, end: int, epoch: int) -> bytes:
    """The whole frame of a request for `[start, end)`; start and end below 2**63."""
    first = b"\x08" + pack_varint(start) if start else b""
    wanted = first + b"\x10" + pack_varint(end)
    told = b"\x39" + _EPOCH.pack(epoch) if epoch else b""
    length = len(identity) + 2 + len(wanted) + len(told)
    return b"".join(
        (_PREFIX.pack(_READ, length, 0), identity, b"\x1a", pack_varint(len(wanted)), wanted, told)
    )


def split_read(frame: bytes) -> tuple[bytes, int, int] | None:
    """Identity, start and end of a request's whole frame. None: it is of another shape."""
    size = len(frame)
    if size >= _LONGEST:
        return None
    try:
        if _PREFIX.unpack_from(frame) != (_READ, size - PREFIX_BYTES, 0):
            return None
        # Object and version, of one or two bytes' length; the range, of one. Where a length has
        # more bytes, the next field would begin beyond _LONGEST, and there is none.
        low = frame[17]
        version = 18 + low if low < 0x80 else 19 + (low & 0x7F | frame[18] << 7)
        low = frame[version + 1]
        border = version + (2 + low if low < 0x80 else 3 + (low & 0x7F | frame[version + 2] << 7))
        low = frame[border + 1]
        beyond = border + 2 + low
        if frame[16] != 0x0A or frame[version] != 0x12 or frame[border] != 0x1A or low >= 0x80:
            return None
        if beyond != size and (beyond + 9 != size or frame[beyond] != 0x39):
            return None
        wanted = _range(frame[border + 2 : beyond])
    except (IndexError, struct.error, DecodeError):
        return None
    end = wanted.end
    return (frame[PREFIX_BYTES:border], wanted.start, end) if 0 < end < _NO_PLACE else None


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


def answer_around(
    beginning: bytes, start: int, length_bytes: int, sums_bytes: int, epoch: int
) -> tuple[bytes, bytes]:
    """What stands before and behind the checksums in prefix and header of an answer from the disk:
    `length_bytes`, at least 1, from `start` on. beginning: `answer_start` of the version.
    """
    first = b"\x08" + pack_varint(start) if start else b""
    prefix, opening, rest, after = _shape(
        len(beginning), len(first), length_bytes, sums_bytes, epoch
    )
    return b"".join((prefix, beginning, opening, first, rest)), after


def answer(beginning: bytes, start: int, digest: bytes, body: bytes, epoch: int) -> bytes:
    """The whole frame of such an answer: a body, its checksum, and what stands around them."""
    first = b"\x08" + pack_varint(start) if start else b""
    prefix, opening, rest, after = _shape(len(beginning), len(first), len(body), len(digest), epoch)
    return b"".join((prefix, beginning, opening, first, rest, digest, after, body))


@lru_cache(_SHAPE_COUNT)
def _shape(
    beginning_bytes: int, first_bytes: int, length_bytes: int, sums_bytes: int, epoch: int
) -> tuple[bytes, bytes, bytes, bytes]:
    """Prefix, what stands before and behind the start, and behind the checksums: the same for all
    answers of such sizes.
    """
    rest = b"\x10" + pack_varint(length_bytes) + _DISK + pack_varint(sums_bytes)
    opening = b"\x22" + pack_varint(first_bytes + len(rest) + sums_bytes)
    after = b"\x28\x01\x39" + _EPOCH.pack(epoch) if epoch else b"\x28\x01"
    sizes = beginning_bytes, len(opening), first_bytes, len(rest), sums_bytes, len(after)
    return _PREFIX.pack(_ANSWER, sum(sizes), length_bytes), opening, rest, after
