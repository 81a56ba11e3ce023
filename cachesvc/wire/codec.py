"""Between the values of the core and the messages of proto/: the one place that knows both.

Rules: whatever comes in is validated by making the core's value of it; a message that cannot be
one is ProtocolError, or the precise error (InvalidKey, RangeError) where the reader is to blame.
ERRORS is the one table from errors to wire codes, both ways; gRPC follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from cachesvc.core import errors
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.ring import Member, MemberTable
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion, Source
from cachesvc.wire.v1 import cache_pb2, cluster_pb2
from cachesvc.wire.varint import pack_varint, read_varint

M = TypeVar("M", bound=Message)

END_OF_OBJECT = (1 << 64) - 1
MAX_FORGET_COUNT = 1024  # objects in one request
_FORGET_NAME_BYTES = 48 << 10  # of names in one request, which is a frame's header

# error class -> (wire code, gRPC status name)
ERRORS: dict[type[errors.CacheError], tuple[cluster_pb2.ErrorCode.ValueType, str]] = {
    errors.ObjectNotFound: (cluster_pb2.ERROR_CODE_OBJECT_NOT_FOUND, "NOT_FOUND"),
    errors.Unauthenticated: (cluster_pb2.ERROR_CODE_UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.AccessDenied: (cluster_pb2.ERROR_CODE_ACCESS_DENIED, "PERMISSION_DENIED"),
    errors.ObjectChanged: (cluster_pb2.ERROR_CODE_OBJECT_CHANGED, "FAILED_PRECONDITION"),
    errors.RangeError: (cluster_pb2.ERROR_CODE_RANGE, "OUT_OF_RANGE"),
    errors.InvalidKey: (cluster_pb2.ERROR_CODE_INVALID_KEY, "INVALID_ARGUMENT"),
    errors.NotCacheable: (cluster_pb2.ERROR_CODE_NOT_CACHEABLE, "FAILED_PRECONDITION"),
    errors.NoCredentials: (cluster_pb2.ERROR_CODE_NO_CREDENTIALS, "UNAVAILABLE"),
    errors.OriginError: (cluster_pb2.ERROR_CODE_ORIGIN, "UNAVAILABLE"),
    errors.Overloaded: (cluster_pb2.ERROR_CODE_OVERLOADED, "RESOURCE_EXHAUSTED"),
    errors.ProtocolError: (cluster_pb2.ERROR_CODE_PROTOCOL, "INVALID_ARGUMENT"),
    errors.NodeUnavailable: (cluster_pb2.ERROR_CODE_DRAINING, "UNAVAILABLE"),
    errors.InternalError: (cluster_pb2.ERROR_CODE_INTERNAL, "INTERNAL"),
}
_BY_CODE = {code: kind for kind, (code, _) in ERRORS.items()}


def code_of(error: BaseException) -> tuple[cluster_pb2.ErrorCode.ValueType, str]:
    """Wire code and gRPC status name of any exception; a stranger is a defect."""
    for kind in type(error).__mro__:
        if kind in ERRORS:
            return ERRORS[kind]
    return ERRORS[errors.InternalError]


def error_message(error: BaseException) -> cluster_pb2.Error:
    """An exception as it travels. A stranger's text stays at home, in the log."""
    known = isinstance(error, errors.CacheError)
    text = str(error) if known else f"a defect ({type(error).__name__}); see the node's log"
    return cluster_pb2.Error(code=code_of(error)[0], message=text[:4096])


def raise_error(message: cluster_pb2.Error) -> None:
    """Raise what travelled, if anything did."""
    if message.code:
        raise _BY_CODE.get(message.code, errors.InternalError)(message.message)


def parse(kind: type[M], raw: bytes | memoryview) -> M:
    """A message of the kind.

    Raises:
        ProtocolError: the bytes are none.
    """
    try:
        return kind.FromString(bytes(raw))
    except DecodeError as error:
        raise errors.ProtocolError(f"bytes that are no {kind.__name__}: {error}") from error


# -- values


def pack_version(version: ObjectVersion) -> cache_pb2.ObjectVersion:
    return cache_pb2.ObjectVersion(
        etag=version.etag,
        size_bytes=version.size_bytes,
        last_modified_ms=version.last_modified_ms,
    )


def unpack_version(name: ObjectName, message: cache_pb2.ObjectVersion) -> ObjectVersion:
    try:
        return ObjectVersion(name, message.etag, message.size_bytes, message.last_modified_ms)
    except ValueError as error:
        raise errors.ProtocolError(f"a version that cannot be one: {error}") from error


def pack_max_age(max_age_s: float | None) -> int:
    return 0 if max_age_s is None else _milliseconds(max_age_s) + 1


def unpack_max_age(plus_one_ms: int) -> float | None:
    return None if plus_one_ms == 0 else (plus_one_ms - 1) / 1000


def pack_geometry(geometry: Geometry, vnodes_per_weight: int) -> cluster_pb2.ClusterConfig:
    return cluster_pb2.ClusterConfig(
        block_bytes=geometry.block_bytes,
        page_bytes=geometry.page_bytes,
        extent_min_bytes=geometry.extent_min_bytes,
        extent_max_bytes=geometry.extent_max_bytes,
        vnodes_per_weight=vnodes_per_weight,
    )


def unpack_geometry(message: cluster_pb2.ClusterConfig) -> Geometry:
    try:
        return Geometry(
            message.block_bytes,
            message.page_bytes,
            message.extent_min_bytes,
            message.extent_max_bytes,
        )
    except (ValueError, ArithmeticError) as error:
        raise errors.ProtocolError(f"a cluster geometry that cannot be one: {error}") from error


def pack_member(member: Member) -> cluster_pb2.Member:
    return cluster_pb2.Member(
        node_id=member.node_id,
        lane_address=member.lane_address,
        grpc_address=member.grpc_address,
        weight=member.weight,
    )


def unpack_member(message: cluster_pb2.Member) -> Member:
    try:
        return Member(message.node_id, message.lane_address, message.grpc_address, message.weight)
    except ValueError as error:
        raise errors.ProtocolError(f"a member that cannot be one: {error}") from error


def pack_table(table: MemberTable) -> cluster_pb2.MemberTable:
    return cluster_pb2.MemberTable(
        members=[pack_member(member) for member in table.members], epoch=table.epoch
    )


def unpack_table(message: cluster_pb2.MemberTable) -> MemberTable:
    try:
        return MemberTable(tuple(unpack_member(member) for member in message.members))
    except ValueError as error:
        raise errors.ProtocolError(f"a member table that cannot be one: {error}") from error


# -- requests


def pack_stat(request: StatRequest) -> bytes:
    return cache_pb2.StatRequest(
        object=cache_pb2.ObjectName(bucket=request.name.bucket, key=request.name.key),
        max_age_plus_one_ms=pack_max_age(request.max_age_s),
    ).SerializeToString()


def unpack_stat(message: cache_pb2.StatRequest) -> StatRequest:
    name = ObjectName(message.object.bucket, message.object.key)
    return StatRequest(name, unpack_max_age(message.max_age_plus_one_ms))


def pack_forget(names: Sequence[ObjectName]) -> bytes:
    objects = [cache_pb2.ObjectName(bucket=name.bucket, key=name.key) for name in names]
    return cache_pb2.ForgetRequest(objects=objects).SerializeToString()


def forget_groups(names: Sequence[ObjectName]) -> Iterator[list[ObjectName]]:
    """The names in groups that fit one request, on every lane."""
    group: list[ObjectName] = []
    group_bytes = 0
    for name in names:
        name_bytes = len(name.bucket.encode()) + len(name.key.encode()) + 16
        full = group_bytes + name_bytes > _FORGET_NAME_BYTES
        if group and (full or len(group) == MAX_FORGET_COUNT):
            yield group
            group, group_bytes = [], 0
        group.append(name)
        group_bytes += name_bytes
    if group:
        yield group


def unpack_forget(message: cache_pb2.ForgetRequest) -> list[ObjectName]:
    if len(message.objects) > MAX_FORGET_COUNT:
        raise errors.ProtocolError(
            f"{len(message.objects)} objects to forget; {MAX_FORGET_COUNT} is the most"
        )
    return [ObjectName(one.bucket, one.key) for one in message.objects]


def pack_read(request: ReadRequest, epoch: int) -> bytes:
    return cache_pb2.ReadRequest(
        object=cache_pb2.ObjectName(bucket=request.name.bucket, key=request.name.key),
        version=None if request.version is None else pack_version(request.version),
        ranges=[
            cache_pb2.Range(start=start, end=END_OF_OBJECT if end is None else end)
            for start, end in request.ranges
        ],
        max_age_plus_one_ms=pack_max_age(request.max_age_s),
        verify=request.verify,
        bypass=request.bypass,
        epoch=epoch,
        descriptors=request.descriptors,
        landed_as_bytes=request.landed_as_bytes,
    ).SerializeToString()


def unpack_read(message: cache_pb2.ReadRequest, *, passing: bool = False) -> ReadRequest:
    """passing: whether the lane can pass descriptors; if not, nobody has asked for them."""
    name = ObjectName(message.object.bucket, message.object.key)
    has_version = message.HasField("version")
    return ReadRequest(
        name,
        tuple((r.start, None if r.end == END_OF_OBJECT else r.end) for r in message.ranges),
        unpack_version(name, message.version) if has_version else None,
        unpack_max_age(message.max_age_plus_one_ms),
        message.verify,
        message.bypass,
        passing and message.descriptors,
        passing and message.landed_as_bytes,
    )


# -- answers


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """What a header says of one segment. `start` counts from the object's beginning.

    descriptor: which of the files passed with the frame has the bytes, from `file_offset` on, the
    checksums then being of all whole pages touched; None: they stand in the body.
    """

    start: int
    length_bytes: int
    source: Source
    checksums: bytes
    descriptor: int | None = None
    file_offset: int = 0


@dataclass(frozen=True, slots=True)
class ReadHead:
    """The header of one frame (or gRPC message) of an answer to a read.

    version stands on the first header of an answer; nothing follows `last`.
    """

    segments: tuple[SegmentHead, ...] = ()
    version: ObjectVersion | None = None
    fresh_for_s: float = 0.0
    last: bool = False
    pending: bool = False
    epoch: int = 0

    @property
    def body_bytes(self) -> int:
        return sum(one.length_bytes for one in self.segments if one.descriptor is None)


def pack_read_head(head: ReadHead) -> cache_pb2.ReadHeader:
    return cache_pb2.ReadHeader(
        version=None if head.version is None else pack_version(head.version),
        fresh_for_ms=_milliseconds(head.fresh_for_s),
        cacheable=head.version is not None and head.version.cacheable,
        segments=[
            cache_pb2.Segment(
                start=one.start,
                length_bytes=one.length_bytes,
                source=cache_pb2.Source.ValueType(one.source),
                checksums=one.checksums,
                descriptor_plus_one=0 if one.descriptor is None else one.descriptor + 1,
                file_offset=one.file_offset,
            )
            for one in head.segments
        ],
        last=head.last,
        pending=head.pending,
        epoch=head.epoch,
    )


def unpack_read_head(name: ObjectName, message: cache_pb2.ReadHeader) -> ReadHead:
    """The head.

    Raises: the error that it carries.
    """
    raise_error(message.error)
    return ReadHead(
        tuple(_segment(one) for one in message.segments),
        unpack_version(name, message.version) if message.HasField("version") else None,
        message.fresh_for_ms / 1000,
        message.last,
        message.pending,
        message.epoch,
    )


def pack_stat_answer(
    version: ObjectVersion, fresh_for_s: float, epoch: int
) -> cache_pb2.StatAnswer:
    return cache_pb2.StatAnswer(
        version=pack_version(version),
        fresh_for_ms=_milliseconds(fresh_for_s),
        cacheable=version.cacheable,
        epoch=epoch,
    )


def unpack_stat_answer(name: ObjectName, message: cache_pb2.StatAnswer) -> ReadHead:
    """The answer as a head without segments.

    Raises: the error that it carries.
    """
    raise_error(message.error)
    version = unpack_version(name, message.version)
    return ReadHead((), version, message.fresh_for_ms / 1000, last=True, epoch=message.epoch)


def _segment(message: cache_pb2.Segment) -> SegmentHead:
    try:
        source = Source(message.source)
    except ValueError as error:
        raise errors.ProtocolError(f"a segment from an unknown source: {error}") from error
    descriptor = message.descriptor_plus_one - 1 if message.descriptor_plus_one else None
    return SegmentHead(
        message.start, message.length_bytes, source, message.checksums,
        descriptor, message.file_offset,
    )  # fmt: skip


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), 1 << 62) if seconds < float("inf") else 1 << 62


# -- gRPC: ReadChunk by hand, so that the payload never passes through protobuf

_HEADER_TAG, _DATA_TAG = b"\x0a", b"\x12"


def pack_chunk_prefix(header: bytes, data_bytes: int) -> bytes:
    """What stands before the data in the wire form of a ReadChunk."""
    prefix = _HEADER_TAG + pack_varint(len(header)) + header
    return prefix + _DATA_TAG + pack_varint(data_bytes) if data_bytes else prefix


def split_chunk(raw: bytes) -> tuple[bytes, memoryview]:
    """A ReadChunk in wire form as (header, data), the data in place.

    Raises:
        ProtocolError: it is none.
    """
    view = memoryview(raw)
    header, data = b"", view[:0]
    position = 0
    while position < len(raw):
        tag, start = raw[position : position + 1], position + 1
        length, start = read_varint(raw, start)
        if start + length > len(raw):
            raise errors.ProtocolError("a ReadChunk that was cut short")
        if tag == _HEADER_TAG:
            header = raw[start : start + length]
        elif tag == _DATA_TAG:
            data = view[start : start + length]
        else:
            raise errors.ProtocolError(f"a ReadChunk with an unknown field {tag!r}")
        position = start + length
    return header, data


def pack_error_head(error: BaseException) -> cache_pb2.ReadHeader:
    return cache_pb2.ReadHeader(error=error_message(error), last=True)
