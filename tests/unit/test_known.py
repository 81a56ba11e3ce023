"""The blocks that hot reads asked for: what they are, and within what memory."""

from __future__ import annotations

import pytest

from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.known import _ENTRY_BYTES, Key, KnownBlocks
from cachesvc.wire import lone
from tests.support import GEOMETRY, NAME

SIZE_BYTES = 5 * GEOMETRY.block_bytes + 200


def version(number: int = 0) -> ObjectVersion:
    return ObjectVersion(NAME, f'"e{number}"', SIZE_BYTES)


def test_a_block_is_worked_out_from_how_its_requests_begin_and_from_its_version() -> None:
    blocks = KnownBlocks(GEOMETRY)
    by_request = blocks.worked_out((lone.request_start(version()), 5))
    by_version = blocks.worked_out((version(), 5))
    assert by_request is not None
    assert by_version is not None
    for one in (by_request, by_version):
        assert one.block.version == version()
        assert (one.start, one.length_bytes) == (5 * GEOMETRY.block_bytes, 200)
        assert one.object_end == SIZE_BYTES
        assert one.id == one.block.id
    assert by_request.beginning == lone.answer_start(version())


@pytest.mark.parametrize(
    "named",
    [
        b"",
        b"nonsense",
        lone.request_start(version())[:-1],
        lone.request_start(ObjectVersion(NAME, 'W/"weak"', SIZE_BYTES)),
        lone.request_start(version()).replace(NAME.bucket.encode(), b"\xff" * len(NAME.bucket)),
    ],
)
def test_what_begins_otherwise_is_none(named: bytes) -> None:
    assert KnownBlocks(GEOMETRY).worked_out((named, 0)) is None


def test_those_that_are_known_take_no_more_than_their_bytes() -> None:
    limit = 20 * (300 + _ENTRY_BYTES)
    blocks = KnownBlocks(GEOMETRY, limit)
    keys: list[Key] = [(lone.request_start(version(number)), number % 6) for number in range(500)]
    keys += [(ObjectVersion(ObjectName("b", "k" * number), '"e"', 9), 0) for number in (1, 900)]
    for key in keys:
        for _ in range(2):
            one = blocks.worked_out(key)
            assert one is not None
            blocks.keep(key, one)
        assert blocks.get(key) is not None
        kept = [one for one in map(blocks.get, keys) if one is not None]
        assert len(kept) == len(blocks)
        assert sum(one.size_bytes for one in kept) == blocks.held_bytes <= limit
    assert 10 < len(blocks) < 30
    assert blocks.get(keys[0]) is None, "those that were found first go first"


def test_what_is_found_again_stays() -> None:
    blocks = KnownBlocks(GEOMETRY, 20 * (300 + _ENTRY_BYTES))
    for number in range(500):
        key = lone.request_start(version(number)), 0
        one = blocks.worked_out(key)
        assert one is not None
        blocks.keep(key, one)
        first = blocks.get((lone.request_start(version(0)), 0))
        assert first is not None
        first.used = True
