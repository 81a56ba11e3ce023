"""What the doors do to ranges, against Python's own slices."""

from __future__ import annotations

from itertools import pairwise

import pytest
from cachesvc_client.pinned import _widened
from hypothesis import given
from hypothesis import strategies as st

from tests.support import pattern

pytest.importorskip("fsspec", reason="fsspec is not installed")

from cachesvc_client.fs.ranges import bounded, read_joined
from cachesvc_client.fs.readahead import PacedCache

DATA = pattern(700_001)
PLACES = st.integers(0, len(DATA))
LENGTHS = st.sampled_from([0, 1, 10, 5000, 65_536, 100_000, 400_000])
RANGES = st.lists(st.tuples(PLACES, LENGTHS), max_size=20)


def cut(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(start, min(start + length, len(DATA))) for start, length in ranges]


@given(ranges=RANGES)
def test_ranges_that_are_read_joined_are_those_ranges(ranges: list[tuple[int, int]]) -> None:
    wanted = cut(ranges)
    found = read_joined(wanted, lambda spans: [DATA[start:end] for start, end in spans])
    assert found == [DATA[start:end] for start, end in wanted]


@given(start=st.none() | st.integers(-9, 9), end=st.none() | st.integers(-9, 9))
def test_bounds_are_those_of_a_slice(start: int | None, end: int | None) -> None:
    first, beyond = bounded(start, end, 5)
    assert b"abcde"[first:beyond] == b"abcde"[start:end]
    assert 0 <= first <= beyond or beyond == first


@given(
    block_bytes=st.sampled_from([1, 1000, 65_536, 1 << 20]),
    steps=st.lists(st.tuples(st.none() | PLACES, LENGTHS), max_size=20),
)
def test_reading_ahead_changes_no_byte(
    block_bytes: int, steps: list[tuple[int | None, int]]
) -> None:
    cache, place = PacedCache(block_bytes, lambda a, b: DATA[a:b], len(DATA)), 0
    for jump, length in steps:
        place = place if jump is None else jump
        assert cache._fetch(place, place + length) == DATA[place : place + length]
        place += length


@given(ranges=RANGES)
def test_what_is_mapped_covers_the_ranges_on_pages(ranges: list[tuple[int, int]]) -> None:
    wanted = [one for one in cut(ranges) if one[0] < one[1]]
    spans = _widened(wanted, len(DATA))
    for start, end in wanted:
        assert any(first <= start and end <= beyond for first, beyond in spans)
    for first, beyond in spans:
        assert first % 4096 == 0
        assert beyond % 4096 == 0 or beyond == len(DATA)
    assert all(one[1] < other[0] for one, other in pairwise(spans))
