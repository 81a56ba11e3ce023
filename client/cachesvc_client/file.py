"""An object as a file: seekable, read-only, pinned to the version that it began with.

Rules: every read names that version; once its bytes are gone, reads raise ObjectChanged. One lock
guards the position, as in any file object: threads may share a file, and share its position. A
forked child reads on with a position of its own, unless another thread held the lock at the fork,
which it does for ever, as the child sees it: that file the child opens anew.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from threading import RLock
from typing import Any

from cachesvc.core.types import ObjectVersion

ReadInto = Callable[[int, memoryview], int]
ReadBytes = Callable[[int, int], bytes]


class CacheFile(io.RawIOBase):
    """A raw file over one object version. `io.BufferedReader` around it makes small reads cheap."""

    def __init__(self, version: ObjectVersion, readinto: ReadInto, read: ReadBytes) -> None:
        super().__init__()
        self.version = version
        self.name = str(version.name)
        self.mode = "rb"
        self._readinto = readinto
        self._read = read
        self._position = 0
        self._lock = RLock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check_open()
        with self._lock:
            if whence == io.SEEK_CUR:
                offset += self._position
            elif whence == io.SEEK_END:
                offset += self.version.size_bytes
            elif whence != io.SEEK_SET:
                raise ValueError(f"{self.name}: whence is {whence}; give 0, 1 or 2")
            if offset < 0:
                raise ValueError(f"{self.name}: position {offset} is before the beginning")
            self._position = offset
            return offset

    def readinto(self, buffer: Any, /) -> int:
        """As many bytes as the buffer has room for, fewer only at the end of the object."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        with self._lock:
            left_bytes = self.version.size_bytes - self._position
            if left_bytes <= 0 or not view:
                return 0
            count = self._readinto(self._position, view[:left_bytes])
            self._position += count
            return count

    def readall(self) -> bytes:
        """Everything from the position on."""
        self._check_open()
        with self._lock:
            start, end = self._position, self.version.size_bytes
            if start >= end:
                return b""
            data = self._read(start, end)
            self._position = end
            return data

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self.name}: I/O operation on closed file")
