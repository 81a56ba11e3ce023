"""Which bytes of a file are in memory: Linux's cachestat (6.5 and newer), by its number."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

_CACHESTAT = 451  # on every architecture


class _Range(ctypes.Structure):
    _fields_ = (("off", ctypes.c_uint64), ("len", ctypes.c_uint64))


class _Found(ctypes.Structure):
    """Numbers of the kernel's pages."""

    _fields_ = (
        ("cached", ctypes.c_uint64), ("dirty", ctypes.c_uint64), ("writeback", ctypes.c_uint64),
        ("evicted", ctypes.c_uint64), ("recently_evicted", ctypes.c_uint64),
    )  # fmt: skip


@cache
def _syscall() -> Any:
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    number, structure = ctypes.c_long, ctypes.c_void_p
    syscall.argtypes = (number, ctypes.c_int, structure, structure, ctypes.c_uint)
    return syscall


def in_memory(fd: int, start: int, end: int) -> bool:
    """Whether all bytes `[start, end)` of the file are in the page cache, as far as the kernel
    says: False where it does not know the question.
    """
    if start >= end:
        return True
    asked, found = _Range(start, end - start), _Found()
    if _syscall()(_CACHESTAT, fd, ctypes.addressof(asked), ctypes.addressof(found), 0) != 0:
        return False
    touched: int = (end - 1) // mmap.PAGESIZE - start // mmap.PAGESIZE + 1
    cached: int = found.cached
    return cached >= touched
