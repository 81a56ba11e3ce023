"""Memory for fills: never handed out while somebody sees it, and never in a slow place."""

from __future__ import annotations

import mmap

import pytest

from cachesvc.buffers import (
    FIRST_BYTE,
    MAX_IDLE_BYTES,
    MIN_BUFFER_BYTES,
    BufferPool,
    room_bytes,
)
from cachesvc.coalescer import MAX_BUFFER_BYTES
from cachesvc.core.memory import address_of
from cachesvc.core.types import Geometry
from cachesvc.origin.s3_client import S3Settings
from cachesvc.readahead import MAX_BLOCKS


@pytest.mark.parametrize("size_bytes", [1, 100, MIN_BUFFER_BYTES, 1 << 20, (8 << 20) - 5])
def test_a_view_begins_where_copies_are_fast(size_bytes: int) -> None:
    pool = BufferPool()
    taken = [pool.take(size_bytes) for _ in range(4)]
    for number, (buffer, view) in enumerate(taken):
        assert len(view) == size_bytes
        view[:] = bytes([number]) * size_bytes
        first = (FIRST_BYTE - address_of(buffer)) % mmap.PAGESIZE
        assert buffer[first : first + size_bytes] == view, "it is the view's memory"
    for number, (_, view) in enumerate(taken):
        assert view == bytes([number]) * size_bytes


def test_a_buffer_comes_again_once_nobody_sees_it() -> None:
    pool = BufferPool()
    buffer, view = pool.take(70_000)
    pool.give(buffer)
    assert pool.lingering_bytes() == room_bytes(70_000)
    other, _ = pool.take(70_000)
    assert other is not buffer
    view.release()
    assert pool.lingering_bytes() == 0
    assert pool.take(70_000)[0] is buffer


def test_no_more_lies_idle_than_the_bound() -> None:
    pool = BufferPool(max_idle_bytes=3 * MIN_BUFFER_BYTES)
    taken = [pool.take(100)[0] for _ in range(5)]
    for buffer in taken:
        pool.give(buffer)
    assert pool.lingering_bytes() == 0
    again = [pool.take(100)[0] for _ in range(5)]
    assert sum(any(one is old for old in taken) for one in again) == 3


def test_the_bounds_hold_as_many_whole_blocks_as_they_are_meant_to() -> None:
    block_bytes = Geometry().block_bytes
    assert room_bytes(block_bytes) * MAX_BLOCKS <= MAX_IDLE_BYTES
    assert room_bytes(block_bytes) * S3Settings().max_gets <= MAX_BUFFER_BYTES
