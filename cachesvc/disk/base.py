"""What a disk is to the store: a flat set of block files, named by block id.

Rules: no policy and no format here; every failure is the operating system's OSError, errno intact,
because the store decides by errno whether a device is full, broken or merely short of descriptors.
A file that was unlinked keeps its bytes for whoever has it open.

Implementations: `nvme.NvmeDisk` (a directory), `memory.MemoryDisk` (tests and the simulator).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NamedTuple, Protocol

# What sendfile says of the file; anything else is said of the client's network.
FILE_ERRORS = {errno.ENODATA, errno.EIO, errno.EUCLEAN, errno.ESTALE, errno.ENXIO, errno.ENODEV}


class Space(NamedTuple):
    """What a file system has in all, and what of it this process may still take; in bytes.

    total_bytes 0: it does not say.
    """

    total_bytes: int
    free_bytes: int


class FileState(NamedTuple):
    """What a file was when it was looked at. changed_ns: its time of change (ctime)."""

    size_bytes: int
    changed_ns: int


class BlockFile(Protocol):
    """One open block file.

    Positions and sizes in bytes; safe to read from several threads at once.
    """

    def pread(self, size_bytes: int, offset: int, wait: bool = True) -> bytes:
        """Up to `size_bytes` bytes; fewer only at the end of the file.

        wait: False for who may wait for no disk: BlockingIOError where not all is in memory.
        """

    def readinto(self, view: memoryview, offset: int) -> int:
        """Fill the view; how many bytes there were, fewer only at the end of the file."""

    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        """All of `data`, or OSError (some of it may have been written)."""

    def size_bytes(self) -> int: ...

    def state(self) -> FileState:
        """Another one after every write and truncation, of whomever."""

    def in_memory(self, start: int, end: int) -> bool:
        """Whether no disk is needed for the bytes `[start, end)`; False also for "who knows"."""

    def taken_bytes(self) -> int:
        """The space that the file really takes on the device."""

    def fileno(self) -> int:
        """The descriptor, for sendfile. Memory files have none and raise OSError."""

    def close(self) -> None:
        """Never fails for bytes that a disk lost: their checksums tell whoever reads them."""


class Disk(Protocol):
    """One device, or a directory on it."""

    @property
    def name(self) -> str:
        """For messages and metrics."""

    def open(self, block_id: bytes) -> BlockFile:
        """Raises FileNotFoundError if there is no such file."""

    def create(self, block_id: bytes) -> BlockFile:
        """A new, empty file. Raises FileExistsError if there is one."""

    def unlink(self, block_id: bytes) -> None:
        """Remove a file; a missing one is fine."""

    def space(self) -> Space:
        """What the device's file system has, whoever takes it."""

    def scan(self) -> Iterator[bytes]:
        """The ids of all files, in no order, while others come and go."""

    def close(self) -> None: ...
