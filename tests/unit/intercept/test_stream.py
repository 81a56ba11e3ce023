"""The bytes of an answer come in order, once each, however they are asked for."""

from __future__ import annotations

from cachesvc_client.intercept.stream import MAX_WINDOW_BYTES, Stream, first_window
from hypothesis import given
from hypothesis import strategies as st

from tests.support import pattern

DATA = pattern(40_000_000)
AMOUNTS = st.one_of(st.none(), st.just(-1), st.integers(0, 300), st.integers(0, 20_000_000))


@given(
    start=st.integers(0, 1000),
    length_bytes=st.one_of(st.integers(0, 3000), st.integers(0, 39_000_000)),
    amounts=st.lists(AMOUNTS, max_size=12),
)
def test_every_way_of_reading_gives_the_same_bytes(
    start: int, length_bytes: int, amounts: list[int | None]
) -> None:
    end = start + length_bytes
    stream = Stream(start, end, DATA[start : first_window(start, end)])
    position = start
    for amount in [*amounts, None]:
        wanted = end - position
        if amount is not None and amount >= 0:
            wanted = min(wanted, amount)
        missing = stream.missing(amount)
        if missing is not None:
            first, beyond = missing
            assert position <= first < beyond <= end
            assert beyond - first <= max(wanted, MAX_WINDOW_BYTES)
        piece = stream.take(amount, DATA[slice(*missing)] if missing else b"")
        assert piece == DATA[position : position + wanted]
        position += wanted
        assert stream.position == position
        assert stream.over == (position == end)
    assert position == end


def test_a_small_object_comes_in_one_window_and_a_large_one_begins_small() -> None:
    assert first_window(0, MAX_WINDOW_BYTES) == MAX_WINDOW_BYTES
    assert first_window(7, 100 << 20) == 7 + (1 << 20)
