"""Whatever comes over a wire: the same frames however it is cut, or a clean error, and no more
memory than the limits say.
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cachesvc.core import errors
from cachesvc.core.errors import CacheError, CorruptAnswer, ProtocolError, RangeError
from cachesvc.core.request import MAX_RANGES, ReadRequest, StatRequest
from cachesvc.core.ring import Member, MemberTable
from cachesvc.core.types import MAX_OBJECT_BYTES, Geometry, ObjectName, ObjectVersion, Source
from cachesvc.wire import codec
from cachesvc.wire.codec import END_OF_OBJECT, ReadHead, SegmentHead
from cachesvc.wire.frame import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    PREFIX_BYTES,
    Kind,
    RequestDecoder,
    encode,
    parse_prefix,
)
from cachesvc.wire.v1 import cache_pb2, cluster_pb2

FUZZ = settings(max_examples=300)
NAME = ObjectName("bucket", "key")

frames = st.builds(encode, st.sampled_from(Kind), st.binary(max_size=200))
bad_frames = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.builds(encode, st.sampled_from(Kind), st.binary(max_size=20), st.integers(1, 1 << 63)),
    st.builds(
        lambda *fields: struct.pack(">2sBBIQ", *fields),
        st.sampled_from([b"CS", b"cs", b"GE"]),
        st.integers(0, 255),
        st.integers(0, 1),
        st.integers(0, (1 << 32) - 1),
        st.integers(0, (1 << 64) - 1),
    ),
)
streams = st.builds(
    lambda parts, tail: b"".join(parts) + tail,
    st.lists(frames, max_size=4),
    st.one_of(st.just(b""), bad_frames, st.builds(lambda f, n: f[:n], frames, st.integers(0, 200))),
)


def decoded(pieces: list[bytes]) -> tuple[list[tuple[Kind, bytes]], type[Exception] | None]:
    """The frames that come out of a stream cut into pieces, and how it ended."""
    decoder = RequestDecoder()
    found = []
    for piece in pieces:
        decoder.feed(piece)
        try:
            while (frame := decoder.next()) is not None:
                found.append(frame)
        except ProtocolError as error:
            return found, type(error)
    return found, None


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(borders)]


@FUZZ
@given(streams, st.lists(st.integers(0, 10_000), max_size=8))
@example(b"X", [])
@example(b"CX", [1])
@example(b"CS" + bytes(14), [1, 2, 3])
def test_however_the_bytes_are_cut_the_same_frames_or_error_come_out(
    stream: bytes, places: list[int]
) -> None:
    whole = decoded([stream])
    assert decoded(cut(stream, places)) == whole
    assert decoded([stream[i : i + 1] for i in range(len(stream))]) == whole


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=300)), max_size=6))
def test_frames_come_out_as_they_went_in(sent: list[tuple[Kind, bytes]]) -> None:
    found, error = decoded([b"".join(encode(kind, header) for kind, header in sent)])
    assert (found, error) == (sent, None)


@FUZZ
@given(st.lists(st.binary(max_size=64), max_size=20))
def test_random_bytes_raise_nothing_but_a_protocol_error(pieces: list[bytes]) -> None:
    decoded(pieces)


def test_a_decoder_stands_between_two_frames_or_does_not() -> None:
    decoder = RequestDecoder()
    assert decoder.empty
    decoder.feed(encode(Kind.STAT, b"abc")[:-1])
    assert decoder.next() is None
    assert not decoder.empty
    decoder.feed(b"c")
    assert decoder.next() == (Kind.STAT, b"abc")
    assert decoder.empty


@given(st.binary(min_size=PREFIX_BYTES, max_size=64))
def test_a_prefix_that_is_accepted_is_within_the_limits(raw: bytes) -> None:
    try:
        prefix = parse_prefix(raw)
    except ProtocolError:
        return
    assert prefix.header_bytes <= MAX_HEADER_BYTES
    assert prefix.body_bytes <= MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("header_bytes", "body_bytes"),
    [(MAX_HEADER_BYTES + 1, 0), ((1 << 32) - 1, 0), (0, MAX_BODY_BYTES + 1), (0, (1 << 64) - 1)],
)
def test_a_length_beyond_its_limit_is_refused_before_anything_is_allocated(
    header_bytes: int, body_bytes: int
) -> None:
    raw = struct.pack(">2sBBIQ", b"CS", Kind.READ, 0, header_bytes, body_bytes)
    decoder = RequestDecoder()
    tracemalloc.start()
    try:
        decoder.feed(raw)
        with pytest.raises(ProtocolError, match=r"most|none"):
            decoder.next()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_header_beyond_the_limit_cannot_be_sent() -> None:
    assert len(encode(Kind.READ, bytes(MAX_HEADER_BYTES))) == PREFIX_BYTES + MAX_HEADER_BYTES
    with pytest.raises(ProtocolError, match="65537 bytes"):
        encode(Kind.READ, bytes(MAX_HEADER_BYTES + 1))


def test_someone_who_speaks_another_protocol_is_found_out_at_once() -> None:
    for greeting in (b"G", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0", b"\0"):
        assert decoded([greeting]) == ([], ProtocolError)


# -- messages


UNPACKERS: dict[type[Message], Callable[[Any], object]] = {
    cache_pb2.StatRequest: codec.unpack_stat,
    cache_pb2.ReadRequest: codec.unpack_read,
    cache_pb2.ReadHeader: lambda message: codec.unpack_read_head(NAME, message),
    cache_pb2.StatAnswer: lambda message: codec.unpack_stat_answer(NAME, message),
    cluster_pb2.ClusterConfig: codec.unpack_geometry,
    cluster_pb2.Member: codec.unpack_member,
    cluster_pb2.MemberTable: codec.unpack_table,
    cluster_pb2.HelloRequest: lambda message: codec.unpack_member(message.member),
    cluster_pb2.Welcome: lambda message: codec.raise_error(message.error),
}


def unpacked(kind: type[Message], raw: bytes) -> None:
    try:
        UNPACKERS[kind](codec.parse(kind, raw))
    except CacheError:
        return


@pytest.mark.parametrize("kind", UNPACKERS, ids=lambda kind: kind.__name__)
def test_an_empty_message_is_a_value_or_a_clean_error(kind: type[Message]) -> None:
    unpacked(kind, b"")


@FUZZ
@given(st.sampled_from(list(UNPACKERS)), st.binary(max_size=120))
def test_random_bytes_are_a_value_or_a_clean_error(kind: type[Message], raw: bytes) -> None:
    unpacked(kind, raw)


@st.composite
def fields(draw: st.DrawFn, depth: int = 0) -> bytes:
    """Bytes that look like protobuf: a few fields of low numbers, some of them nested."""
    out = b""
    for _ in range(draw(st.integers(0, 4))):
        number = draw(st.integers(1, 9))
        wire = draw(st.sampled_from([0, 1, 2, 5]))
        out += bytes([number << 3 | wire])
        if wire == 0:
            out += varint(draw(st.integers(0, (1 << 64) - 1) | st.integers(0, 3)))
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            out += draw(st.binary(min_size=size, max_size=size))
        else:
            text = st.text(max_size=20).map(str.encode) | st.binary(max_size=20)
            inner = draw(fields(depth + 1) if depth < 2 else text) if draw(st.booleans()) else None
            inner = draw(text) if inner is None else inner
            out += varint(len(inner)) + inner
    return out


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@settings(max_examples=1000)
@given(st.sampled_from(list(UNPACKERS)), fields())
def test_messages_of_nonsense_are_a_value_or_a_clean_error(kind: type[Message], raw: bytes) -> None:
    unpacked(kind, raw)


@FUZZ
@given(st.binary(max_size=100) | fields())
def test_a_chunk_of_random_bytes_is_split_or_refused(raw: bytes) -> None:
    try:
        header, data = codec.split_chunk(raw)
    except ProtocolError:
        return
    assert len(header) + len(data) <= len(raw)
    reference = cache_pb2.ReadChunk()
    try:
        reference.ParseFromString(raw)
    except Exception:
        return
    assert bytes(data) == reference.data


@FUZZ
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_chunk_made_by_hand_is_the_one_protobuf_makes(etag: bytes, data: bytes) -> None:
    message = cache_pb2.ReadHeader(epoch=len(etag), last=True)
    message.version.etag = etag.hex()
    header = message.SerializeToString()
    raw = codec.pack_chunk_prefix(header, len(data)) + data
    parsed = cache_pb2.ReadChunk.FromString(raw)
    assert (parsed.header, parsed.data) == (message, data)
    for form in (raw, parsed.SerializeToString()):
        found_header, found_data = codec.split_chunk(form)
        assert (found_header, bytes(found_data)) == (header, data)


@FUZZ
@given(st.binary(min_size=1, max_size=100), st.integers(0, 200))
def test_a_chunk_that_was_cut_short_is_refused_or_lacks_its_data(data: bytes, keep: int) -> None:
    raw = codec.pack_chunk_prefix(b"header", len(data)) + data
    if keep >= len(raw):
        return
    try:
        _, found = codec.split_chunk(raw[:keep])
    except ProtocolError:
        return
    assert keep in (0, 8)  # between two fields
    assert not found


# -- values


versions = st.builds(
    ObjectVersion,
    st.just(NAME),
    st.text(max_size=60),
    st.integers(0, MAX_OBJECT_BYTES),
    st.integers(-(1 << 62), 1 << 62),
)
ages = st.none() | st.sampled_from([0.0, 0.5, 10.0, 3600.0, float("inf")])
names = st.builds(
    ObjectName,
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=100),
)
ranges = st.tuples(st.integers(0, MAX_OBJECT_BYTES), st.none() | st.integers(0, END_OF_OBJECT - 1))
epochs = st.integers(0, (1 << 64) - 1)


@FUZZ
@given(names, ages)
def test_a_stat_request_survives_the_wire(name: ObjectName, age: float | None) -> None:
    raw = codec.pack_stat(StatRequest(name, age))
    back = codec.unpack_stat(codec.parse(cache_pb2.StatRequest, raw))
    assert back.name == name
    assert same_age(back.max_age_s, age)


def same_age(found: float | None, sent: float | None) -> bool:
    """Forever travels as a number of milliseconds that nobody will see pass."""
    if sent == float("inf"):
        return found is not None and found > 1e12
    return found == sent


@FUZZ
@given(
    names, st.lists(ranges, min_size=1, max_size=20), st.none() | versions, ages, st.booleans(),
    epochs,
)  # fmt: skip
def test_a_read_request_survives_the_wire(
    name: ObjectName,
    wanted: list[tuple[int, int | None]],
    version: ObjectVersion | None,
    age: float | None,
    verify: bool,
    epoch: int,
) -> None:
    if version is not None:
        version = ObjectVersion(name, version.etag, version.size_bytes, version.last_modified_ms)
    request = ReadRequest(name, tuple(wanted), version, age, verify, len(wanted) == 1, verify)
    message = codec.parse(cache_pb2.ReadRequest, codec.pack_read(request, epoch))
    back = codec.unpack_read(message)
    assert same_age(back.max_age_s, age)
    assert (back.name, back.ranges, back.version) == (name, request.ranges, version)
    assert (back.verify, back.bypass, message.epoch) == (verify, request.bypass, epoch)
    assert not back.descriptors, "only a lane that can pass them believes that they are wanted"
    assert codec.unpack_read(message, passing=True).descriptors == verify


@FUZZ
@given(
    st.lists(
        st.builds(
            SegmentHead,
            st.integers(0, MAX_OBJECT_BYTES),
            st.integers(0, MAX_BODY_BYTES),
            st.sampled_from(Source),
            st.binary(max_size=64),
            st.none() | st.integers(0, 252),
            st.integers(0, MAX_OBJECT_BYTES),
        ),
        max_size=5,
    ),
    st.none() | versions,
    st.sampled_from([0.0, 0.5, 7.25, 86_400.0]),
    st.booleans(),
    st.booleans(),
    epochs,
)
def test_a_read_head_survives_the_wire(
    segments: list[SegmentHead],
    version: ObjectVersion | None,
    fresh_for_s: float,
    last: bool,
    pending: bool,
    epoch: int,
) -> None:
    head = ReadHead(tuple(segments), version, fresh_for_s, last, pending, epoch)
    raw = codec.pack_read_head(head).SerializeToString()
    message = codec.parse(cache_pb2.ReadHeader, raw)
    assert codec.unpack_read_head(NAME, message) == head
    assert message.cacheable == (version is not None and version.cacheable)
    in_body = [one for one in segments if one.descriptor is None]
    assert head.body_bytes == sum(one.length_bytes for one in in_body)


@given(versions, st.sampled_from([0.0, 0.5, 10.0]), epochs)
def test_a_stat_answer_survives_the_wire(
    version: ObjectVersion, fresh_for_s: float, epoch: int
) -> None:
    raw = codec.pack_stat_answer(version, fresh_for_s, epoch).SerializeToString()
    head = codec.unpack_stat_answer(NAME, codec.parse(cache_pb2.StatAnswer, raw))
    assert head == ReadHead((), version, fresh_for_s, last=True, epoch=epoch)


def test_fresh_forever_survives_the_wire() -> None:
    version = ObjectVersion(NAME, '"v"', 5)
    forever = codec.pack_stat_answer(version, float("inf"), 0)
    assert codec.unpack_stat_answer(NAME, forever).fresh_for_s > 1e12
    head = codec.pack_read_head(ReadHead((), version, float("inf")))
    assert codec.unpack_read_head(NAME, head).fresh_for_s > 1e12


@given(st.integers(1, 16), st.integers(1, 8), st.integers(0, 9), st.integers(1, 600))
def test_a_geometry_survives_the_wire(window: int, windows: int, more: int, vnodes: int) -> None:
    page = 4096
    smallest = window * page
    geometry = Geometry(windows * smallest, page, smallest, smallest + more * page)
    message = codec.pack_geometry(geometry, vnodes)
    again = codec.parse(cluster_pb2.ClusterConfig, message.SerializeToString())
    assert codec.unpack_geometry(again) == geometry
    assert again.vnodes_per_weight == vnodes


@given(st.sets(st.integers(0, 99), min_size=1, max_size=8), st.integers(1, 9))
def test_a_member_table_survives_the_wire(numbers: set[int], weight: int) -> None:
    members = [
        Member(f"node-{number}", f"10.0.0.{number}:1", f"10.0.0.{number}:2", weight)
        for number in numbers
    ]
    table = MemberTable(tuple(members))
    message = codec.pack_table(table)
    again = codec.unpack_table(codec.parse(cluster_pb2.MemberTable, message.SerializeToString()))
    assert (again.members, again.epoch) == (table.members, table.epoch)
    assert message.epoch == table.epoch


def test_a_request_with_too_many_or_impossible_ranges_is_a_range_error() -> None:
    message = cache_pb2.ReadRequest(object=cache_pb2.ObjectName(bucket="b", key="k"))
    with pytest.raises(RangeError):
        codec.unpack_read(message)
    message.ranges.extend([cache_pb2.Range(start=0, end=1)] * (MAX_RANGES + 1))
    with pytest.raises(RangeError):
        codec.unpack_read(message)


@pytest.mark.parametrize(("bucket", "key"), [("", "k"), ("b", ""), ("b/c", "k"), ("b", "k\0")])
def test_an_impossible_name_is_an_invalid_key(bucket: str, key: str) -> None:
    name = cache_pb2.ObjectName(bucket=bucket, key=key)
    with pytest.raises(errors.InvalidKey):
        codec.unpack_stat(cache_pb2.StatRequest(object=name))
    with pytest.raises(errors.InvalidKey):
        codec.unpack_read(cache_pb2.ReadRequest(object=name))


# -- errors


def travelling() -> list[type[CacheError]]:
    """Every error class but the root, and the client's own."""
    found, todo = [], [CacheError]
    while todo:
        for kind in todo.pop().__subclasses__():
            found.append(kind)
            todo.append(kind)
    return [kind for kind in found if kind.__module__ == errors.__name__ and kind != CorruptAnswer]


def test_every_error_that_can_travel_has_a_wire_code_of_its_own() -> None:
    assert set(codec.ERRORS) == set(travelling())
    codes = [code for code, _, _ in codec.ERRORS.values()]
    assert sorted(codes) == sorted(set(cluster_pb2.ErrorCode.values()) - {0})


@pytest.mark.parametrize("kind", travelling(), ids=lambda kind: kind.__name__)
def test_an_error_arrives_as_what_it_was(kind: type[CacheError]) -> None:
    message = codec.error_message(kind("s3://bucket/kéy: because"))
    again = codec.parse(cluster_pb2.Error, message.SerializeToString())
    with pytest.raises(kind) as caught:
        codec.raise_error(again)
    assert type(caught.value) is kind
    assert str(caught.value) == "s3://bucket/kéy: because"
    with pytest.raises(kind):
        codec.unpack_read_head(NAME, codec.pack_error_head(kind("x")))
    status = codec.code_of(kind("x"))[1]
    import grpc

    assert status in grpc.StatusCode.__members__


def test_a_stranger_arrives_as_a_defect_and_keeps_its_text_at_home() -> None:
    message = codec.error_message(ZeroDivisionError("the secret"))
    assert "secret" not in message.message
    with pytest.raises(errors.InternalError, match="ZeroDivisionError"):
        codec.raise_error(message)


def test_an_error_code_of_a_later_version_is_an_internal_error() -> None:
    message = cluster_pb2.Error(message="new")
    message.code = 99  # type: ignore[assignment]
    with pytest.raises(errors.InternalError, match="new"):
        codec.raise_error(message)
    codec.raise_error(cluster_pb2.Error())


def test_a_long_error_is_cut_to_fit_a_header() -> None:
    message = codec.pack_error_head(errors.OriginError("é" * 100_000))
    assert len(message.SerializeToString()) < MAX_HEADER_BYTES
