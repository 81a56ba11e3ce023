"""Addresses of this process, and what is laid over them: system calls that `mmap` does not offer.

Story: a Region reserves its addresses once, as one anonymous mapping that can only be read. Over
it, files are laid (`lay`) and room is made for what is received (`open_up`); at the end all of it
can only be read again (`seal`). Linux only.

Rules: addresses that are given here are within a reservation that the caller keeps; starts are
multiples of PAGE_BYTES wherever something is laid. Every failure is an OSError, errno intact.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from resource import RUSAGE_THREAD, getrusage
from typing import Any

PAGE_BYTES = mmap.PAGESIZE
HUGE_BYTES = 2 << 20  # what one entry of a page table can show, of memory and file alike aligned
MAP_NORESERVE = 0x4000
_MAP_FIXED = 0x10
_MAP_FIXED_NOREPLACE = 0x100000
MADV_POPULATE_READ = 22
_FAILED = ctypes.c_void_p(-1).value


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (address, size, number, number, number, ctypes.c_long)
    libc.munmap.argtypes = (address, size)
    libc.mprotect.argtypes = libc.madvise.argtypes = (address, size, number)
    return libc


def writable(address: int, length_bytes: int) -> memoryview:
    """The memory there as a writable view; whoever writes has it opened up before."""
    return memoryview((ctypes.c_char * length_bytes).from_address(address)).cast("B")


@contextmanager
def occupied(address: int, length_bytes: int) -> Iterator[None]:
    """Nobody else gets these addresses meanwhile, if nobody has them."""
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE | _MAP_FIXED_NOREPLACE
    found = _libc().mmap(address, length_bytes, 0, kind, -1, 0)
    try:
        yield
    finally:
        if found is not None and found != _FAILED:
            _check(_libc().munmap(found, length_bytes))


def lay(address: int, length_bytes: int, file: int, offset: int) -> None:
    """Show a part of a file there, to be read only: its memory is that of all who map it."""
    _map(address, length_bytes, mmap.PROT_READ, mmap.MAP_PRIVATE | MAP_NORESERVE, file, offset)


def open_up(address: int, length_bytes: int) -> None:
    """Make room that can be written, empty but for the pages at both ends, which others share.
    Where such a page is a file's, what is written there is this process's alone.
    """
    end = address + length_bytes
    inner, beyond = -(-address // PAGE_BYTES) * PAGE_BYTES, end // PAGE_BYTES * PAGE_BYTES
    if inner < beyond:
        kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        _map(inner, beyond - inner, mmap.PROT_READ | mmap.PROT_WRITE, kind, -1, 0)
    for edge in {address // PAGE_BYTES * PAGE_BYTES, beyond}:
        if edge < end and not inner <= edge < beyond:
            _protect(edge, PAGE_BYTES, mmap.PROT_READ | mmap.PROT_WRITE)


def thaw(address: int, length_bytes: int) -> None:
    """All of it can be written from now on; a page that is written is copied, for this process."""
    _protect(address, length_bytes, mmap.PROT_READ | mmap.PROT_WRITE)


def seal(address: int, length_bytes: int) -> None:
    """All of it can only be read from now on."""
    _protect(address, length_bytes, mmap.PROT_READ)


def bring_in(address: int, length_bytes: int) -> bool:
    """Have all pages there, now, where a failing disk is an OSError and not a signal.

    Whether a page had to be waited for: read from the disk, as a rule (a major fault).

    Raises: OSError: EINVAL where the kernel is older than 5.14; EFAULT, EHWPOISON, EIO where the
    file is shorter, or cannot be read.
    """
    before = getrusage(RUSAGE_THREAD).ru_majflt
    _check(_libc().madvise(address, length_bytes, MADV_POPULATE_READ))
    return getrusage(RUSAGE_THREAD).ru_majflt != before


def _map(address: int, length_bytes: int, access: int, kind: int, file: int, offset: int) -> None:
    flags = kind | _MAP_FIXED
    _check(0 if _libc().mmap(address, length_bytes, access, flags, file, offset) == address else -1)


def _protect(address: int, length_bytes: int, access: int) -> None:
    _check(_libc().mprotect(address, length_bytes, access))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
