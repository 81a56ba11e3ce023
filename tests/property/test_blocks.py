"""Slices tile a range, page sets are what a naive loop says, and no two blocks share an id."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cachesvc.core.blocks import BlockRef, Slice, cuts, pages_of, runs, slices
from cachesvc.core.types import MAX_KEY_BYTES, ByteRange, Geometry, ObjectName, ObjectVersion

PROFILE = settings(max_examples=300)


def version(
    size_bytes: int = 1000, bucket: str = "bucket", key: str = "key", etag: str = '"etag"'
) -> ObjectVersion:
    return ObjectVersion(ObjectName(bucket, key), etag, size_bytes)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    page = draw(st.integers(1, 100))
    window = draw(st.integers(1, 16))
    windows = draw(st.integers(1, 128 // window))
    return Geometry(page * window * windows, page, page * window, page * window * 2)


@st.composite
def reads(draw: st.DrawFn) -> tuple[ObjectVersion, ByteRange, Geometry]:
    geometry = draw(geometries())
    size = draw(st.integers(0, 5 * geometry.block_bytes))
    start = draw(st.integers(0, size))
    return version(size), ByteRange(start, draw(st.integers(start, size))), geometry


@PROFILE
@given(reads())
def test_slices_tile_the_range_exactly(read: tuple[ObjectVersion, ByteRange, Geometry]) -> None:
    of, wanted, geometry = read
    position = wanted.start
    for part in slices(of, wanted, geometry):
        assert part.object_start == position
        assert 0 <= part.start < part.end <= part.block.length_bytes <= geometry.block_bytes
        position += part.length_bytes
    assert position == wanted.end


@PROFILE
@given(reads())
def test_a_slice_touches_exactly_the_pages_that_hold_its_bytes(
    read: tuple[ObjectVersion, ByteRange, Geometry],
) -> None:
    for part in slices(*read):
        page_bytes = part.block.geometry.page_bytes
        touched = {byte // page_bytes for byte in range(part.start, part.end)}
        assert part.pages == sum(1 << page for page in touched)
        assert part.pages & ~part.block.all_pages == 0


@PROFILE
@given(geometries(), st.data())
def test_the_pages_of_the_blocks_add_up_to_the_object(
    geometry: Geometry, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, 3 * geometry.block_bytes))
    count = -(-size // geometry.block_bytes)
    blocks = [BlockRef(version(size), index, geometry) for index in range(count)]
    assert [block.start for block in blocks] == [i * geometry.block_bytes for i in range(count)]
    assert sum(block.length_bytes for block in blocks) == size
    for block in blocks:
        lengths = [block.page_length_bytes(page) for page in range(block.page_count)]
        assert sum(lengths) == block.length_bytes
        assert all(0 < length <= geometry.page_bytes for length in lengths)
        assert block.all_pages.bit_count() == block.page_count <= geometry.pages_per_block
    for index in (-1, count):
        with pytest.raises(ValueError, match=f"no block {index}"):
            BlockRef(version(size), index, geometry)


@PROFILE
@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 50))
def test_pages_of_is_every_page_with_a_byte_in_the_range(
    start: int, end: int, page_bytes: int
) -> None:
    naive = {byte // page_bytes for byte in range(start, end)}
    assert pages_of(start, end, page_bytes) == sum(1 << page for page in naive)


@PROFILE
@given(st.integers(0, (1 << 128) - 1))
def test_runs_are_maximal_in_order_and_give_the_bitmap_back(bitmap: int) -> None:
    found = list(runs(bitmap))
    assert sum(((1 << (beyond - first)) - 1) << first for first, beyond in found) == bitmap
    assert all(first < beyond for first, beyond in found)
    assert all(one[1] < other[0] for one, other in pairwise(found))


@PROFILE
@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 50))
def test_cuts_tile_the_range_and_lie_in_one_page_each(
    start: int, end: int, page_bytes: int
) -> None:
    position = start
    for first, beyond in cuts(start, end, page_bytes):
        assert first == position < beyond
        assert first // page_bytes == (beyond - 1) // page_bytes
        assert beyond == end or beyond % page_bytes == 0
        position = beyond
    assert position == max(start, end)


# --- identity -------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6)
identities = st.tuples(texts, texts, texts, st.integers(201, 1000), st.integers(0, 2))


def id_of(identity: tuple[str, str, str, int, int]) -> bytes:
    bucket, key, etag, size, index = identity
    return BlockRef(version(size, bucket, key, etag), index, Geometry(100, 10, 10, 100)).id


@PROFILE
@given(identities, identities)
def test_two_ids_are_equal_exactly_if_the_identities_are(
    one: tuple[str, str, str, int, int], other: tuple[str, str, str, int, int]
) -> None:
    assert (id_of(one) == id_of(other)) == (one == other)


@PROFILE
@given(identities, st.integers(0, 4), st.data())
def test_an_id_changes_with_every_single_field(
    identity: tuple[str, str, str, int, int], field: int, data: st.DataObject
) -> None:
    strategy = [texts, texts, texts, st.integers(201, 1000), st.integers(0, 2)][field]
    value = data.draw(strategy)
    assume(value != identity[field])
    changed = (*identity[:field], value, *identity[field + 1 :])
    assert id_of(changed) != id_of(identity)  # type: ignore[arg-type]


@PROFILE
@given(texts, st.data())
def test_an_id_changes_when_a_border_between_fields_moves(joined: str, data: st.DataObject) -> None:
    assume(len(joined) >= 4)
    cuts_at = st.tuples(st.integers(1, len(joined) - 2), st.integers(1, len(joined) - 1))
    one, other = (data.draw(cuts_at.filter(lambda pair: pair[0] < pair[1])) for _ in range(2))
    ids = {
        id_of((joined[:first], joined[first:second], joined[second:], 500, 0))
        for first, second in (one, other)
    }
    assert len(ids) == (1 if one == other else 2)


def test_an_id_changes_with_the_geometry_that_cuts_the_block_but_not_with_the_extents() -> None:
    def with_geometry(*sizes: int) -> bytes:
        return BlockRef(version(), 0, Geometry(*sizes)).id

    ids = {with_geometry(100, 10, 10, 10), with_geometry(200, 10, 10, 10)}
    ids |= {with_geometry(100, 20, 20, 20)}
    assert len(ids) == 3
    assert with_geometry(100, 10, 50, 100) in ids


def test_an_id_is_16_bytes_the_same_for_ever_and_blind_to_last_modified() -> None:
    block = BlockRef(version(9 << 20), 1, Geometry())
    assert block.id.hex() == "8b8fcff0fc039f45fe881a5ac792919a"
    dated = ObjectVersion(block.version.name, block.version.etag, 9 << 20, last_modified_ms=5)
    assert BlockRef(dated, 1, Geometry()) == block
    assert len({block, BlockRef(dated, 1, Geometry()), BlockRef(dated, 0, Geometry())}) == 2
    assert block != block.id


def test_a_key_of_the_greatest_length_has_an_id() -> None:
    block = BlockRef(version(1, key="ä" * (MAX_KEY_BYTES // 2)), 0, Geometry())
    assert len(block.id) == 16


def test_an_empty_range_has_no_slices_and_a_range_beyond_the_object_is_a_defect() -> None:
    assert list(slices(version(10), ByteRange(5, 5), Geometry())) == []
    assert list(slices(version(0), ByteRange(0, 0), Geometry())) == []
    with pytest.raises(AssertionError):
        list(slices(version(10), ByteRange(5, 11), Geometry()))


def test_a_slice_counts_from_its_block() -> None:
    geometry = Geometry()
    found = list(slices(version(20 << 20), ByteRange((8 << 20) - 1, (16 << 20) + 1), geometry))
    assert found == [
        Slice(found[0].block, (8 << 20) - 1, 8 << 20),
        Slice(found[1].block, 0, 8 << 20),
        Slice(found[2].block, 0, 1),
    ]
    assert [part.block.index for part in found] == [0, 1, 2]


@PROFILE
@given(reads())
def test_sections_are_the_pieces_with_the_whole_pages_in_one(
    read: tuple[ObjectVersion, ByteRange, Geometry],
) -> None:
    for part in slices(*read):
        page_bytes = part.block.geometry.page_bytes
        sections = part.sections()
        assert [whole for _, _, _, whole in sections].count(True) <= 1
        cut = [
            (start, end, start // page_bytes, whole)
            for first, beyond, _, whole in sections
            for start, end in cuts(first, beyond, page_bytes)
        ]
        assert cut == part.pieces()
        assert all(start // page_bytes == page for start, _, page, _ in sections)
