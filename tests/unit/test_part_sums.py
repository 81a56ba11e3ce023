"""Checksums of parts, as they are remembered: what was noted is found, and takes no more room than
it may.
"""

from __future__ import annotations

from random import Random

import pytest

from cachesvc.core import parts
from cachesvc.core.blocks import BlockRef
from cachesvc.core.parts import SUMS_BYTES
from cachesvc.part_sums import _ENTRY_BYTES, PartSums
from tests.support import GEOMETRY, blocks_of, version_of

PAGE = GEOMETRY.page_bytes


def sums_of(seed: int, pages: int) -> bytes:
    return Random(seed).randbytes(pages * SUMS_BYTES)


def blocks(count: int) -> list[BlockRef]:
    return blocks_of(version_of(bytes(count * GEOMETRY.block_bytes)))


def test_what_was_noted_of_pages_is_found_and_of_others_nothing() -> None:
    sums, (block, other) = PartSums(), blocks(2)
    some = sums_of(1, 2)
    sums.note(block, 1, some)
    assert [sums.of(block.id, page) for page in range(4)] == [
        None, some[:SUMS_BYTES], some[SUMS_BYTES:], None,
    ]  # fmt: skip
    sums.note(block, 3, sums_of(2, 1))
    assert sums.of(block.id, 2) == some[SUMS_BYTES:]
    assert sums.of(block.id, 3) == sums_of(2, 1)
    assert sums.of(other.id, 1) is None


def test_of_a_page_that_is_short_those_that_it_has_are_noted() -> None:
    sums, block = PartSums(), blocks(1)[0]
    data = Random(3).randbytes(PAGE // 2 + 1)
    made = parts.of_page(data, parts.part_bytes_of(PAGE))
    sums.note(block, 2, made)
    assert sums.of(block.id, 2) == made
    assert sums.of(block.id, 3) is None


@pytest.mark.parametrize("page_bytes", [2, 10, 17, 100, 128, 65_536])
def test_those_of_a_page_take_as_much_room_whatever_its_size(page_bytes: int) -> None:
    part_bytes = parts.part_bytes_of(page_bytes)
    page = Random(page_bytes).randbytes(page_bytes)
    sums = parts.of_page(page, part_bytes)
    assert len(sums) == SUMS_BYTES
    for first, start in enumerate(range(0, page_bytes, part_bytes)):
        for end in (start + 1, page_bytes):
            assert parts.match(page[start : max(end, start + part_bytes)], part_bytes, sums, first)
        assert not parts.match(b"?" * part_bytes, part_bytes, sums, first)


def test_the_blocks_that_were_noted_first_go_first() -> None:
    each = GEOMETRY.pages_per_block * SUMS_BYTES + _ENTRY_BYTES
    sums = PartSums(max_bytes=3 * each)
    many = blocks(5)
    for number, block in enumerate(many):
        sums.note(block, 0, sums_of(number, 1))
        assert sums.held_bytes == min(number + 1, 3) * each
    assert [sums.of(block.id, 0) is not None for block in many] == [False] * 2 + [True] * 3
    sums.forget([many[3].id, many[0].id])
    assert sums.of(many[3].id, 0) is None
    assert sums.of(many[4].id, 0) == sums_of(4, 1)
    assert sums.held_bytes == 2 * each
