"""A value that is packed, sent and unpacked is the same value; an impossible one is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core import errors
from cachesvc.core.errors import RangeError
from cachesvc.core.request import MAX_RANGES, ReadRequest, StatRequest
from cachesvc.core.ring import Member, MemberTable
from cachesvc.core.types import MAX_OBJECT_BYTES, Geometry, ObjectName, ObjectVersion, Source
from cachesvc.wire import codec
from cachesvc.wire.codec import END_OF_OBJECT, ReadHead, SegmentHead
from cachesvc.wire.frame import MAX_BODY_BYTES
from cachesvc.wire.v1 import cache_pb2, cluster_pb2
from tests.fuzz.sample import FUZZ, NAME

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
