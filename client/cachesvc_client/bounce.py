"""Copies that the processor would make slowly, made by way of a buffer between.

Why: the kernel copies by `rep movsb`. On AMD's Zen 3 that has a fifth of its speed where the
destination lies 1 to 31 bytes behind the source, counted within pages of 4 KiB: each load seems to
wait for a store just made. Files begin with pages, and so do their bytes in the page cache, from
which sendfile sends on one host; a large bytearray or numpy array begins 16 bytes behind a page,
because glibc keeps 16 bytes of its own before what it maps. So the most usual destination is the
slow one (docs/decisions/0023-slow-places-of-memory.md).

Story: who is about to receive bytes of a file asks `needed`. If so, it receives into `room`, a
piece at a time, and copies from there: two fast copies, the second one within the processor's
cache, in place of a slow one. Whether this processor is one of those is tried once in a process.

Rules: what comes so has checksums, and is held to them where it has arrived, not in the buffer: a
signal's handler that reads as well, on the same thread, uses the same one. A forked child does not.
"""

from __future__ import annotations

import mmap
import os
import time
from functools import cache
from threading import local

from cachesvc.core.memory import address_of
from cachesvc_client.addresses import PAGE_BYTES

PIECE_BYTES = 1 << 20  # less costs more in calls than it gains by being in the core's own cache
_WORTH_BYTES = 64 << 10  # below, there is little to gain
_SLOW_BYTES = range(1, 32)  # behind the source, within a page
_APART_BYTES = PAGE_BYTES // 2  # of the buffer and the destination, and so of source and buffer
_SLOWER = 2.0  # times, and the processor is one of those
_TRIES = 5

_own = local()


def needed(view: memoryview, start: int) -> bool:
    """Whether bytes of a file, from byte `start` of it on, should come into the view by `room`."""
    if len(view) < _WORTH_BYTES or (address_of(view) - start) % PAGE_BYTES not in _SLOW_BYTES:
        return False
    try:
        return _slow_here()
    except OSError:  # no file to try it with, at the moment: the bytes are as right without
        return False


def room(view: memoryview) -> memoryview:
    """For the view's first bytes, PIECE_BYTES at most: the calling thread's own, until it asks
    again.
    """
    buffer: memoryview | None = getattr(_own, "buffer", None)
    if buffer is None:
        buffer = _own.buffer = _memory()
    offset = (address_of(view) + _APART_BYTES) % PAGE_BYTES
    return buffer[offset : offset + min(PIECE_BYTES, len(view))]


def _memory() -> memoryview:
    """Of this process alone, also after a fork."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return memoryview(mmap.mmap(-1, PIECE_BYTES + PAGE_BYTES, flags=private))


@cache
def _slow_here() -> bool:
    """Try it: a file in memory, read in both ways; about two milliseconds."""
    file = os.memfd_create("cachesvc-bounce", os.MFD_CLOEXEC)
    try:
        os.pwrite(file, bytes(PIECE_BYTES), 0)
        buffer, slow_s, fast_s = _memory(), float("inf"), float("inf")
        for _ in range(_TRIES):  # in turns, so that a busy moment is one for both
            slow_s = min(slow_s, _timed(file, _piece_at(buffer, len(_SLOW_BYTES) // 2)))
            fast_s = min(fast_s, _timed(file, _piece_at(buffer, _APART_BYTES)))
    finally:
        os.close(file)
    return slow_s > _SLOWER * fast_s


def _piece_at(buffer: memoryview, offset: int) -> memoryview:
    return buffer[offset : offset + PIECE_BYTES]


def _timed(file: int, view: memoryview) -> float:
    began_s = time.perf_counter()
    os.preadv(file, [view], 0)
    return time.perf_counter() - began_s
