"""Reads of one range by hand: byte for byte what protobuf packs and parses."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cachesvc.core.errors import CacheError
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import MAX_OBJECT_BYTES, ObjectName, ObjectVersion, Source
from cachesvc.wire import codec, lone
from cachesvc.wire.codec import END_OF_OBJECT, ReadHead, SegmentHead
from cachesvc.wire.frame import PREFIX_BYTES, Kind, encode
from cachesvc.wire.v1 import cache_pb2
from cachesvc.wire.varint import pack_varint

texts = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1)
names = st.builds(ObjectName, texts.map(lambda t: t[:60]), texts.map(lambda t: t[:200] * 2))
sizes = st.integers(0, MAX_OBJECT_BYTES)
epochs = st.integers(0, (1 << 64) - 1)
versions = st.builds(
    ObjectVersion,
    names,
    st.text(st.characters(min_codepoint=35, max_codepoint=126), min_size=1).map(
        lambda t: f'"{t[:200]}"'
    ),
    sizes,
    st.integers(-(1 << 40), 1 << 45),
)
ranges = st.tuples(sizes, sizes).map(lambda pair: (min(pair), max(pair)))
offsets = st.integers(0, (1 << 63) - 1)
requests = st.builds(
    ReadRequest,
    names,
    st.lists(
        st.tuples(st.integers(0, END_OF_OBJECT), st.one_of(st.none(), st.integers(0, 1 << 63))),
        min_size=1,
        max_size=2,
    ).map(tuple),
    st.none(),
    st.one_of(st.none(), st.floats(0, 1e6)),
    st.booleans(),
    st.just(False),
    st.booleans(),
)

VERSION = ObjectVersion(ObjectName("b", "k"), '"e"', 9)
WANTED = b"\x09" + (5).to_bytes(8, "little") + b"\x11" + (9).to_bytes(8, "little")
TOLD = b"\x39" + bytes(8)


def frame_of(request: ReadRequest, epoch: int) -> bytes:
    return encode(Kind.READ, codec.pack_read(request, epoch))


@given(versions, st.tuples(st.integers(0, END_OF_OBJECT), st.integers(0, END_OF_OBJECT)), epochs)
def test_a_request_by_hand_is_the_one_of_the_codec(
    version: ObjectVersion, wanted: tuple[int, int], epoch: int
) -> None:
    beginning = lone.request_start(version)
    frame = lone.pack_read(beginning, *wanted, epoch)
    start, end = wanted
    whole = (start, None if end == END_OF_OBJECT else end)
    assert frame == frame_of(ReadRequest(version.name, (whole,), version), epoch)
    assert lone.split_read(frame) == (beginning, *wanted)
    assert lone.version_of(beginning) == version


@given(versions, requests, epochs, st.booleans())
def test_whatever_the_codec_packs_is_split_alike_or_not_at_all(
    version: ObjectVersion, request: ReadRequest, epoch: int, named: bool
) -> None:
    asked = ReadRequest(
        version.name, request.ranges, version if named else None, request.max_age_s,
        request.verify, False, request.descriptors,
    )  # fmt: skip
    plain = asked == ReadRequest(version.name, asked.ranges, version) and len(asked.ranges) == 1
    found = lone.split_read(frame_of(asked, epoch))
    if plain:
        start, end = asked.ranges[0]
        whole = (start, END_OF_OBJECT if end is None else end)
        assert found == (lone.request_start(version), *whole)
    elif found is not None:
        with pytest.raises(CacheError):
            lone.version_of(found[0])


@given(versions, ranges, epochs, st.data())
@example(ObjectVersion(ObjectName("b", "k"), '"e"', 9), (0, 9), 1, None)
def test_of_a_damaged_request_nothing_else_is_read_than_protobuf_reads(
    version: ObjectVersion, wanted: tuple[int, int], epoch: int, data: st.DataObject | None
) -> None:
    frame = bytearray(lone.pack_read(lone.request_start(version), *wanted, epoch))
    for _ in range(data.draw(st.integers(0, 3)) if data else 0):
        assert data is not None
        place = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(("set", "cut", "put"))):
            case "set":
                frame[place] = data.draw(st.integers(0, 255))
            case "cut":
                del frame[place]
            case "put":
                frame.insert(place, data.draw(st.integers(0, 255)))
    split_as_protobuf_reads(bytes(frame))


@st.composite
def odd_requests(draw: st.DrawFn) -> bytes:
    """Three fields or four, mostly as they should be, each of them odd in one way or another."""
    version = draw(versions)
    object_ = cache_pb2.ObjectName(bucket=version.name.bucket, key=version.name.key)
    named = codec.pack_version(version).SerializeToString()
    wanted = cache_pb2.Range(
        start=draw(offsets), end=draw(st.sampled_from((0, 1, 9, 1 << 40, (1 << 63) - 1, 1 << 63)))
    ).SerializeToString()
    junk = draw(
        st.sampled_from((b"", b"", b"\x08", b"\x10\x05", b"\x7a\x02hi", b"\x08\x81\x00", b"\xff"))
    )
    wanted = wanted + junk if draw(st.booleans()) else junk + wanted
    usual = ((0x0A, object_.SerializeToString()), (0x12, named), (0x1A, wanted))
    fields = []
    for expected, raw in draw(st.sampled_from((usual, usual, usual + usual[2:], usual[::-1]))):
        tag = draw(st.sampled_from((expected,) * 9 + (0x0A, 0x12, 0x1A, 0x22, 0x39)))
        length = bytearray(pack_varint(len(raw)))
        for _ in range(draw(st.sampled_from((0, 0, 0, 0, 0, 1, 2)))):  # padded
            length[-1] |= 0x80
            length.append(0)
        fields.append(bytes((tag, *length)) + raw)
    tails = (TOLD, TOLD, TOLD, b"", b"\x28\x01" + TOLD, b"\x3a" + bytes(8))
    return encode(Kind.READ, b"".join((*fields, draw(st.sampled_from(tails)))))


@settings(max_examples=1000)
@given(odd_requests())
def test_of_an_odd_request_nothing_else_is_read_than_protobuf_reads(frame: bytes) -> None:
    split_as_protobuf_reads(frame)


@pytest.mark.parametrize(
    "rest",
    [
        b"\x1a\x01\xff",  # no Range
        b"\x1a\x09" + WANTED[:9] + TOLD,  # of no end
        b"\x22\x12" + WANTED + TOLD,  # another field
        b"\x1a\x92\x00" + WANTED + TOLD,  # a length that takes more bytes than it needs
        b"\x1a\x12" + WANTED + b"\x1a\x12" + WANTED + TOLD,  # two ranges
        b"\x1a\x12" + WANTED + b"\x28\x01" + TOLD,  # to be verified
        b"\x1a\x12" + WANTED + TOLD + b"\x40\x01",  # as descriptors
        b"\x1a\x12" + WANTED + b"\x3a" + bytes(8),
        b"\x1a\x12" + WANTED,  # no epoch
        b"",
    ],
)
def test_what_is_no_range_of_a_version_is_not_split_or_found_out(rest: bytes) -> None:
    identity = lone.request_start(VERSION)[PREFIX_BYTES:-3]
    whole = lone.split_read(encode(Kind.READ, identity + b"\x1a\x12" + WANTED + TOLD))
    assert whole is not None
    assert lone.version_of(whole[0]).etag == '"e"'
    found = lone.split_read(encode(Kind.READ, identity + rest))
    if found is not None:
        with pytest.raises(CacheError):
            lone.version_of(found[0])


@pytest.mark.parametrize("kind", [Kind.STAT, Kind.FORGET, Kind.READ_ANSWER])
def test_a_frame_of_another_kind_is_found_out(kind: Kind) -> None:
    frame = lone.pack_read(lone.request_start(VERSION), 5, 9, 0)
    found = lone.split_read(encode(kind, frame[PREFIX_BYTES:]))
    assert found is not None
    with pytest.raises(CacheError):
        lone.version_of(found[0])


def test_two_requests_that_came_at_once_are_not_taken_for_one() -> None:
    frame = lone.pack_read(lone.request_start(VERSION), 5, 9, 0)
    found = lone.split_read(frame + frame)
    assert found is not None
    with pytest.raises(CacheError):
        lone.version_of(found[0])


def split_as_protobuf_reads(raw: bytes) -> None:
    """The request is not split, or what protobuf reads in it."""
    found = lone.split_read(raw)
    if found is None:
        return
    beginning, start, end = found
    try:
        version = lone.version_of(beginning)
    except CacheError:
        return
    assert raw[:PREFIX_BYTES] == encode(Kind.READ, raw[PREFIX_BYTES:])[:PREFIX_BYTES]
    parsed = codec.unpack_read(codec.parse(cache_pb2.ReadRequest, raw[PREFIX_BYTES:]))
    whole = (start, None if end == END_OF_OBJECT else end)
    assert parsed == ReadRequest(version.name, (whole,), version)


@given(versions, offsets, st.integers(1, 1 << 40), st.binary(max_size=160), epochs)
def test_an_answer_by_hand_is_the_one_of_the_codec(
    version: ObjectVersion, start: int, length_bytes: int, sums: bytes, epoch: int
) -> None:
    sums = sums or b"12345678"
    head = ReadHead(
        (SegmentHead(start, length_bytes, Source.DISK, sums),), version, last=True, epoch=epoch
    )
    shape = lone.answer_shape(lone.answer_start(version), length_bytes, len(sums), epoch)
    before, after = lone.answer_around(shape, start)
    packed = codec.pack_read_head(head).SerializeToString()
    assert before + sums + after == encode(Kind.READ_ANSWER, packed)[: PREFIX_BYTES - 8] + (
        length_bytes.to_bytes(8, "big") + packed
    )
    digest, body = sums[:8].rjust(8, b"\xff"), sums * 2
    shape = lone.answer_shape(lone.answer_start(version), len(body), len(digest), epoch)
    before, after = lone.answer_around(shape, start)
    number = int.from_bytes(digest, "little")
    assert lone.answer(shape, start, number, body) == before + digest + after + body
