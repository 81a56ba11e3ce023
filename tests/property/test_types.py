"""A value that exists is valid: names, versions, ranges and geometries refuse nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.core.errors import CacheError, InvalidKey, RangeError, Retry
from cachesvc.core.types import (
    MAX_BUCKET_BYTES,
    MAX_ETAG_BYTES,
    MAX_KEY_BYTES,
    PAGES_PER_BLOCK,
    ByteRange,
    Geometry,
    ObjectName,
    ObjectVersion,
    clamp,
)

PROFILE = settings(max_examples=300)
NAME = ObjectName("bucket", "key")

buckets = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60)
keys = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200)


@PROFILE
@given(buckets, keys)
def test_a_name_survives_its_uri(bucket: str, key: str) -> None:
    name = ObjectName(bucket, key)
    assert ObjectName.parse(str(name)) == name


@PROFILE
@given(st.text(), st.text())
def test_any_text_makes_a_name_or_an_invalid_key(bucket: str, key: str) -> None:
    try:
        name = ObjectName(bucket, key)
    except InvalidKey:
        return
    assert (name.bucket, name.key) == (bucket, key)


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "a//b", "/", " ", "ключ", "a?b#c%20", "🙂", "\n"]
)
def test_odd_keys_are_kept_byte_for_byte(key: str) -> None:
    assert ObjectName.parse(f"s3://bucket/{key}").key == key


@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("", "k"),
        ("b", ""),
        ("b\0", "k"),
        ("b", "k\0"),
        ("a/b", "k"),
        ("b", "\ud800"),
        ("b", "k" * (MAX_KEY_BYTES + 1)),
        ("b", "ä" * (MAX_KEY_BYTES // 2) + "k"),
        ("b" * (MAX_BUCKET_BYTES + 1), "k"),
    ],
)
def test_names_that_no_object_can_have_are_refused(bucket: str, key: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        ObjectName(bucket, key)
    assert caught.value.retry is Retry.NEVER
    assert isinstance(caught.value, CacheError)


def test_the_longest_names_are_accepted() -> None:
    assert len(ObjectName("b" * MAX_BUCKET_BYTES, "ä" * (MAX_KEY_BYTES // 2)).key) == 512


@pytest.mark.parametrize(
    "uri", ["", "key", "s3:/b/k", "s3://", "s3://b", "s3://b/", "s3:///k", "http://b/k", "S3://b/k"]
)
def test_uris_that_name_no_object_are_refused(uri: str) -> None:
    with pytest.raises(InvalidKey, match="s3://bucket/key"):
        ObjectName.parse(uri)


@pytest.mark.parametrize(
    ("etag", "cacheable"),
    [
        ('"a"', True),
        ('"d41d8cd9-7"', True),
        ('W/"a"', False),
        ("", False),
        ('""', False),
        ('"', False),
        ("a", False),
        ('"a', False),
        ('a"', False),
    ],
)
def test_only_a_strong_etag_is_cacheable(etag: str, cacheable: bool) -> None:
    assert ObjectVersion(NAME, etag, 1).cacheable is cacheable


def test_versions_are_the_same_by_name_etag_and_size() -> None:
    version = ObjectVersion(NAME, '"a"', 5, 1)
    assert version.same_bytes(ObjectVersion(NAME, '"a"', 5, 2))
    assert not version.same_bytes(ObjectVersion(NAME, '"b"', 5, 1))
    assert not version.same_bytes(ObjectVersion(NAME, '"a"', 6, 1))
    assert not version.same_bytes(ObjectVersion(ObjectName("bucket", "other"), '"a"', 5, 1))


def test_a_version_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="size_bytes"):
        ObjectVersion(NAME, '"a"', -1)
    with pytest.raises(ValueError, match="ETag"):
        ObjectVersion(NAME, '"' * (MAX_ETAG_BYTES + 1), 1)


@PROFILE
@given(st.integers(-5, 20), st.integers(-5, 20))
def test_a_range_is_half_open_and_never_reversed(start: int, end: int) -> None:
    if 0 <= start <= end:
        assert ByteRange(start, end).length_bytes == len(range(start, end))
    else:
        with pytest.raises(RangeError):
            ByteRange(start, end)


@PROFILE
@given(st.integers(-3, 30), st.none() | st.integers(-3, 30), st.integers(0, 20))
def test_clamp_cuts_as_a_slice_does_or_refuses(start: int, end: int | None, size: int) -> None:
    if start < 0 or start > size or (end is not None and end < start):
        with pytest.raises(RangeError, match="s3://bucket/key"):
            clamp(NAME, start, end, size)
    else:
        wanted = clamp(NAME, start, end, size)
        content = bytes(range(size))
        assert content[wanted.start : wanted.end] == content[start:end]
        assert wanted.end <= size


@PROFILE
@given(*[st.integers(-4, 300)] * 4)
def test_any_geometry_that_is_accepted_cuts_whole_pages_and_windows(
    block: int, page: int, least: int, most: int
) -> None:
    try:
        geometry = Geometry(block, page, least, most)
    except ValueError:
        return
    assert 0 < page <= least <= block
    assert least <= most
    assert block % page == least % page == most % page == block % least == 0
    assert 1 <= geometry.pages_per_block <= PAGES_PER_BLOCK


@pytest.mark.parametrize(
    "sizes",
    [
        (0, 1, 1, 1),
        (1, 0, 1, 1),
        (1, 1, 0, 1),
        (-8, 1, 1, 1),
        (8, -1, 1, 1),
        (8, 1, -1, 8),
        (10, 3, 3, 3),
        (10, 1, 3, 3),
        (8, 2, 3, 8),
        (8, 1, 4, 2),
        (8, 2, 4, 5),
        (129, 1, 1, 1),
    ],
)
def test_a_geometry_that_makes_no_sense_is_refused(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError):
        Geometry(*sizes)


def test_the_default_geometry_is_that_of_the_design() -> None:
    geometry = Geometry()
    assert (geometry.block_bytes, geometry.page_bytes) == (8 << 20, 64 << 10)
    assert (geometry.extent_min_bytes, geometry.extent_max_bytes) == (1 << 20, 16 << 20)
    assert geometry.pages_per_block == PAGES_PER_BLOCK
