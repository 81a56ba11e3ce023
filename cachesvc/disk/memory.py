"""A `Disk` in memory, for tests and the simulator: unlinked files live on in whoever has them open,
as on a real one.

Faults are settable at any time: `fail(op)` is asked before every operation and may raise an
OSError; `flip` damages a stored byte; `limit_bytes` makes writes beyond it fail with ENOSPC, after
writing what fits; of these bytes others take `foreign_bytes`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from cachesvc.disk.base import FileState, Space

_SECTOR_BYTES = 4096


class MemoryFile:
    """An open file (see disk.base.BlockFile). All handles of one name share one `data`."""

    def __init__(self, disk: MemoryDisk, data: bytearray) -> None:
        self._disk = disk
        self.data = data
        disk.open_count += 1

    def pread(self, size_bytes: int, offset: int, wait: bool = True) -> bytes:  # noqa: ARG002
        self._disk.fail("pread")
        return bytes(self.data[offset : offset + size_bytes])

    def readinto(self, view: memoryview, offset: int) -> int:
        data = self.pread(len(view), offset)
        view[: len(data)] = data
        return len(data)

    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        self._disk.fail("pwrite")
        end = offset + len(data)
        disk = self._disk
        room = disk.limit_bytes - disk.foreign_bytes - disk.taken_bytes() + self.taken_bytes()
        if end > room:
            raise OSError(errno.ENOSPC, "no space left on the memory disk")
        if end > len(self.data):
            self.data.extend(bytes(end - len(self.data)))
        self.data[offset:end] = data

    def size_bytes(self) -> int:
        return len(self.data)

    def state(self) -> FileState:
        return FileState(len(self.data), 0)

    def in_memory(self, start: int, end: int) -> bool:  # noqa: ARG002
        """Nobody sends a memory file but by reading it."""
        return False

    def taken_bytes(self) -> int:
        return -(-len(self.data) // _SECTOR_BYTES) * _SECTOR_BYTES

    def fileno(self) -> int:
        raise OSError(errno.EBADF, "a memory file has no descriptor")

    def close(self) -> None:
        self._disk.open_count -= 1


class MemoryDisk:
    """See disk.base.Disk. `files` survives the store, as a disk survives a crash of the node."""

    def __init__(self, name: str = "memory", limit_bytes: int = 1 << 62) -> None:
        self._name = name
        self.limit_bytes = limit_bytes
        self.foreign_bytes = 0
        self.files: dict[bytes, bytearray] = {}
        self.fail: Callable[[str], None] = lambda _op: None
        self.open_count = 0

    @property
    def name(self) -> str:
        return self._name

    def taken_bytes(self) -> int:
        return sum(
            -(-len(data) // _SECTOR_BYTES) * _SECTOR_BYTES for data in list(self.files.values())
        )

    def open(self, block_id: bytes) -> MemoryFile:
        self.fail("open")
        if block_id not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such block", block_id.hex())
        return MemoryFile(self, self.files[block_id])

    def create(self, block_id: bytes) -> MemoryFile:
        self.fail("create")
        if block_id in self.files:
            raise FileExistsError(errno.EEXIST, "block exists", block_id.hex())
        self.files[block_id] = bytearray()
        return MemoryFile(self, self.files[block_id])

    def unlink(self, block_id: bytes) -> None:
        self.fail("unlink")
        self.files.pop(block_id, None)

    def space(self) -> Space:
        free_bytes = self.limit_bytes - self.foreign_bytes - self.taken_bytes()
        return Space(self.limit_bytes, max(0, free_bytes))

    def scan(self) -> Iterator[bytes]:
        self.fail("scan")
        yield from list(self.files)

    def flip(self, block_id: bytes, bit: int) -> None:
        """Flip one bit of a stored file, as a bad disk would."""
        data = self.files[block_id]
        data[bit // 8 % len(data)] ^= 1 << bit % 8

    def close(self) -> None:
        """Nothing to give back."""
