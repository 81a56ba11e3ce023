"""Whatever stands in a message or a chunk of the wire: a value, or a clean error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.core.errors import CacheError, ProtocolError
from cachesvc.wire import codec
from cachesvc.wire.v1 import cache_pb2, cluster_pb2
from tests.fuzz.sample import FUZZ, NAME

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
