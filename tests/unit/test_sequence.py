"""Reads in order are recognized, also where they overtake each other; chance is no order."""

from __future__ import annotations

import random

import pytest

from cachesvc.core.sequence import MAX_EARLY, MAX_STREAMS, Sequence, Stream

BLOCK = 8 << 20


def read(sequence: Sequence, index: int, blocks: float = 1) -> Stream | None:
    start, length = index * BLOCK, int(blocks * BLOCK)
    return sequence.read(start, start + length, length)


def in_order(sequence: Sequence) -> list[int]:
    """Where each stream that is in order goes on, as a block."""
    return sorted(one.next // BLOCK for one in sequence.streams if one.in_order)


def test_two_blocks_one_after_the_other_are_in_order_and_one_is_not() -> None:
    sequence = Sequence(BLOCK)
    assert read(sequence, 4) is None
    assert in_order(sequence) == []
    assert read(sequence, 5) is not None
    assert in_order(sequence) == [6]


def test_one_large_read_is_no_order() -> None:
    sequence = Sequence(BLOCK)
    assert read(sequence, 0, 32) is None
    assert in_order(sequence) == []


def test_small_reads_are_in_order_once_they_add_up_to_two_blocks() -> None:
    sequence = Sequence(BLOCK)
    mib = 1 << 20
    for number in range(16):
        assert in_order(sequence) == []
        sequence.read(number * mib, (number + 1) * mib, mib)
    assert in_order(sequence) == [2]


def test_reads_that_overtake_each_other_are_in_order() -> None:
    for seed in range(200):
        dice = random.Random(seed)
        burst = sorted(range(16), key=lambda index: index + dice.random() * 12)
        sequence = Sequence(BLOCK)
        for index in burst:
            read(sequence, index)
        assert in_order(sequence) == [16], f"seed {seed}: {burst}"
        assert sequence.streams[-1].furthest == 16 * BLOCK


def test_several_readers_at_different_places_are_each_in_order() -> None:
    sequence = Sequence(BLOCK)
    for step in range(6):
        for begin in (0, 100, 200):
            read(sequence, begin + step)
    assert in_order(sequence) == [6, 106, 206]


def test_a_range_that_is_read_again_says_nothing() -> None:
    sequence = Sequence(BLOCK)
    for index in (0, 0, 1, 0, 1, 2):
        read(sequence, index)
    assert in_order(sequence) == [3]
    assert read(sequence, 1) is None
    assert len(sequence.streams) == 1


def test_a_read_that_begins_within_what_was_read_and_goes_on_is_in_order() -> None:
    sequence = Sequence(BLOCK)
    mib, step = 1 << 20, 100_000
    for window in range(17):
        start = window * mib // step * step  # the first read that the window before does not cover
        sequence.read(start, (window + 1) * mib, (window + 1) * mib - start)
    (stream,) = sequence.streams
    assert stream.in_order
    assert stream.length_bytes == stream.next == 17 * mib


def test_reads_from_one_start_on_are_no_order() -> None:
    sequence = Sequence(BLOCK)
    for beyond in range(1, 20):
        assert sequence.read(0, beyond * BLOCK, beyond * BLOCK) is None
    assert in_order(sequence) == []


def test_random_reads_are_not_in_order() -> None:
    for seed in range(50):
        dice = random.Random(seed)
        sequence = Sequence(BLOCK)
        for _ in range(200):
            start = dice.randrange(1000 * BLOCK)
            stream = sequence.read(start, start + 100_000, 100_000)
            assert stream is None or not stream.in_order, f"seed {seed}"


@pytest.mark.parametrize("blocks", [4, 16, 1000])
def test_random_reads_are_not_in_order_although_they_count_with_what_they_bring(
    blocks: int,
) -> None:
    mib, length = 1 << 20, 700_000
    for seed in range(30):
        dice = random.Random(seed)
        sequence, brought = Sequence(BLOCK), set[int]()
        for _ in range(300):
            start = dice.randrange(blocks * BLOCK - length)
            last = (start + length - 1) // mib
            missing = {start // mib, last} - brought
            brought |= missing
            if missing:
                end = (last + 1) * mib if last in missing else start + length
                stream = sequence.read(start, end, end - start)
                assert stream is None or not stream.in_order, f"seed {seed}"


def test_whole_blocks_in_random_order_are_hardly_ever_taken_for_order() -> None:
    wrong = 0
    for seed in range(100):
        dice = random.Random(seed)
        sequence = Sequence(BLOCK)
        for _ in range(200):
            stream = read(sequence, dice.randrange(1000))
            wrong += stream is not None and stream.in_order
    assert wrong <= 100 * 200 // 1000


def test_it_remembers_a_bounded_number_of_reads() -> None:
    sequence = Sequence(BLOCK)
    for index in range(0, 10_000, 2):
        read(sequence, index)
    for index in range(0, 10_000, 40):
        read(sequence, index)
    assert len(sequence.streams) <= MAX_STREAMS
    assert all(len(stream.early) <= MAX_EARLY for stream in sequence.streams)
