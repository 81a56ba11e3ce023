"""A trailer gives back what was put into it, and nothing at all once a bit of it has changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import (
    CHECKSUM_BYTES,
    TRAILER_BYTES,
    FormatError,
    Trailer,
    checksum,
    decode,
    trailer_offset,
)
from cachesvc.core.types import (
    MAX_OBJECT_BYTES,
    PAGES_PER_BLOCK,
    Geometry,
    ObjectName,
    ObjectVersion,
)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    page_bytes = draw(st.integers(1, 1 << 20))
    window_pages = draw(st.integers(1, 16))
    windows = draw(st.integers(1, PAGES_PER_BLOCK // window_pages))
    most_pages = window_pages + draw(st.integers(0, 256))
    extent_min = window_pages * page_bytes
    return Geometry(windows * extent_min, page_bytes, extent_min, most_pages * page_bytes)


def texts(max_bytes: int, exclude: str, min_size: int = 1) -> st.SearchStrategy[str]:
    characters = st.characters(codec="utf-8", exclude_characters=exclude)
    return st.text(characters, min_size=min_size, max_size=max_bytes).filter(
        lambda text: len(text.encode()) <= max_bytes
    )


@st.composite
def trailers(draw: st.DrawFn) -> Trailer:
    geometry = draw(geometries())
    name = ObjectName(draw(texts(255, "/\0")), draw(texts(1024, "\0")))
    size_bytes = draw(st.integers(1, MAX_OBJECT_BYTES))
    modified_ms = draw(st.integers(-(1 << 63), (1 << 63) - 1))
    version = ObjectVersion(name, draw(texts(256, "", min_size=0)), size_bytes, modified_ms)
    last = (size_bytes - 1) // geometry.block_bytes
    block = BlockRef(version, draw(st.integers(0, last)), geometry)
    present = draw(st.integers(0, block.all_pages))
    sums = draw(st.binary(min_size=8 * PAGES_PER_BLOCK, max_size=8 * PAGES_PER_BLOCK))
    return Trailer(block, present, sums)


LONGEST = ObjectVersion(ObjectName("b" * 255, "k" * 1024), "e" * 256, 8 << 20)
BLOCK = BlockRef(LONGEST, 0, Geometry())


def full_trailer() -> Trailer:
    trailer = Trailer(BLOCK)
    trailer.add(0, b"".join(checksum(bytes([page])) for page in range(PAGES_PER_BLOCK)))
    return trailer


@given(trailers())
def test_a_trailer_survives_its_file(trailer: Trailer) -> None:
    raw = trailer.encode()
    assert len(raw) == TRAILER_BYTES
    back = decode(raw)
    assert back.block.id == trailer.block.id
    assert back.block.version == trailer.block.version
    assert back.block.geometry == trailer.block.geometry
    assert (back.block.index, back.present) == (trailer.block.index, trailer.present)
    assert back.checksums(0, PAGES_PER_BLOCK) == trailer.checksums(0, PAGES_PER_BLOCK)
    assert back.encode() == raw


def test_every_single_flipped_bit_is_noticed() -> None:
    raw = bytearray(full_trailer().encode())
    for bit in range(8 * TRAILER_BYTES):
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            decode(bytes(raw))
        raw[bit // 8] ^= 1 << bit % 8
    assert decode(bytes(raw)).block == BLOCK


@given(trailers(), st.sets(st.integers(0, 8 * TRAILER_BYTES - 1), min_size=1, max_size=20))
def test_flipped_bits_of_any_trailer_are_noticed(trailer: Trailer, bits: set[int]) -> None:
    raw = bytearray(trailer.encode())
    for bit in bits:
        raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FormatError):
        decode(bytes(raw))


@given(trailers(), st.integers(0, TRAILER_BYTES - 1), st.binary(max_size=2))
def test_a_trailer_cut_short_or_grown_is_noticed(trailer: Trailer, keep: int, more: bytes) -> None:
    raw = trailer.encode()
    for damaged in (raw[:keep], raw[keep + 1 :], b"\0" + raw, raw + b"\0" + more):
        with pytest.raises(FormatError):
            decode(damaged)


@given(st.binary(max_size=TRAILER_BYTES + 1) | st.binary(min_size=4096, max_size=4096))
def test_other_bytes_are_no_trailer(raw: bytes) -> None:
    with pytest.raises(FormatError):
        decode(raw)


@settings(max_examples=300)
@given(st.data())
def test_a_well_sealed_trailer_of_nonsense_is_refused_or_consistent(data: st.DataObject) -> None:
    """The checksum is no secret: what is sealed rightly must still not raise anything else."""
    from xxhash import xxh3_64_intdigest

    raw = bytearray(full_trailer().encode()[:-8])
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(8, 88) | st.integers(0, len(raw) - 1))
        raw[position] = data.draw(st.integers(0, 255))
    sealed = bytes(raw) + xxh3_64_intdigest(bytes(raw)).to_bytes(8, "little")
    try:
        trailer = decode(sealed)
    except FormatError:
        return
    assert trailer.present & ~trailer.block.all_pages == 0
    assert len(trailer.block.id) == 16


@given(trailers(), st.data())
def test_a_page_that_is_present_keeps_its_checksum(trailer: Trailer, data: st.DataObject) -> None:
    count = trailer.block.page_count
    first = data.draw(st.integers(0, count - 1))
    beyond = data.draw(st.integers(first + 1, count))
    fresh = data.draw(
        st.binary(min_size=8 * (beyond - first), max_size=8 * (beyond - first)), "checksums"
    )
    before, old = trailer.present, trailer.checksums(0, PAGES_PER_BLOCK)
    added = trailer.add(first, fresh)
    wanted = ((1 << (beyond - first)) - 1) << first
    assert (added, trailer.present) == (wanted & ~before, before | wanted)
    for page in range(count):
        at = page * CHECKSUM_BYTES
        is_new = added >> page & 1
        expected = fresh[at - first * 8 :][:8] if is_new else old[at:][:8]
        assert trailer.checksums(page, page + 1) == expected


@given(trailers())
def test_a_trailer_stands_behind_the_data_on_a_border(trailer: Trailer) -> None:
    offset = trailer_offset(trailer.block)
    assert offset % TRAILER_BYTES == 0
    assert 0 <= offset - trailer.block.length_bytes < TRAILER_BYTES
