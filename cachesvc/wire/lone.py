"""A read of one range of a version that is named, and its answer in one segment, by hand.

Story: that is what a hot small read is on the wire, and making messages of it costs more than
reading the bytes. The object and its version stand in the first two fields (`identity`), the same
bytes in every request for them; what follows has a fixed shape.

Rules: what is packed here is byte for byte what codec.py packs; what is split here is what protobuf
parses; anything of another shape is None and goes through codec.py. Tests hold both to that
(tests/property/test_lone.py). Pure.
"""

from __future__ import annotations

import re
from struct import Struct

from cachesvc.core.types import ObjectVersion, Source
from cachesvc.wire import codec
from cachesvc.wire.frame import PREFIX_BYTES, Kind
from cachesvc.wire.v1 import cache_pb2
from cachesvc.wire.varint import pack_varint

_PREFIX = Struct(">4sIQ")
_READ = b"CS" + bytes((Kind.READ, 0))
_ANSWER = b"CS" + bytes((Kind.READ_ANSWER, 0))
_EPOCH = Struct("<Q")
_DISK = b"\x18" + bytes((Source.DISK,)) + b"\x22"
_NUMBER = rb"([\x80-\xff]{0,8}[\x00-\x7f])"
_REST = re.compile(
    rb"\x1a(.)(?:\x08" + _NUMBER + rb")?\x10" + _NUMBER + rb"(?:\x39.{8})?", re.DOTALL
)


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
    if len(frame) < PREFIX_BYTES + 8:
        return None
    magic, length, body_bytes = _PREFIX.unpack_from(frame)
    if magic != _READ or length != len(frame) - PREFIX_BYTES or body_bytes:
        return None
    border = _field_end(frame, _field_end(frame, PREFIX_BYTES, 0x0A), 0x12)
    rest = _REST.fullmatch(frame, border) if border else None
    if rest is None or rest.end(3) - rest.end(1) != rest[1][0]:
        return None
    start = 0 if rest[2] is None else _number(rest[2])
    return frame[PREFIX_BYTES:border], start, _number(rest[3])


def _number(raw: bytes) -> int:
    """What a whole number in protobuf's wire form says; below 2**63 in nine bytes."""
    number = 0
    for byte in reversed(raw):
        number = number << 7 | byte & 0x7F
    return number


def _field_end(frame: bytes, position: int, tag: int) -> int:
    """Where a field of bytes that begins at `position` ends; 0 if it does not have that tag."""
    if not position or position + 2 >= len(frame) or frame[position] != tag:
        return 0
    low, high = frame[position + 1], frame[position + 2]
    if low < 0x80:
        return position + 2 + low
    return position + 3 + (low & 0x7F | high << 7) if high < 0x80 else 0


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
    segment = first + b"\x10" + pack_varint(length_bytes) + _DISK + pack_varint(sums_bytes)
    segment_bytes = len(segment) + sums_bytes
    before = beginning + b"\x22" + pack_varint(segment_bytes) + segment
    after = b"\x28\x01\x39" + _EPOCH.pack(epoch) if epoch else b"\x28\x01"
    header_bytes = len(before) + sums_bytes + len(after)
    return _PREFIX.pack(_ANSWER, header_bytes, length_bytes) + before, after
