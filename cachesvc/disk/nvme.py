"""A directory on a local disk as a `Disk`: DIR/blocks/ab/abcdef….block, one file a block.

Rules: 256 folders, made at need, keep directories short; a lock file keeps a second node out;
whatever stands in the 256 folders and is not named like a block was not put there by us, could
never be found again, and is removed by `scan` so that it takes no space.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cachesvc.disk import residence
from cachesvc.disk.base import FileState, Space

_SUFFIX = ".block"


class NvmeFile:
    """An open block file (see disk.base.BlockFile)."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pread(self, size_bytes: int, offset: int, wait: bool = True) -> bytes:
        if wait:
            return os.pread(self._fd, size_bytes, offset)
        data = bytearray(size_bytes)
        try:
            filled = os.preadv(self._fd, [data], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            filled = 0
        if filled < size_bytes:
            raise BlockingIOError(errno.EAGAIN, "not all of it is in memory")
        return bytes(data)

    def readinto(self, view: memoryview, offset: int) -> int:
        filled = 0
        while filled < len(view):
            count = os.preadv(self._fd, [view[filled:]], offset + filled)
            if count == 0:
                break
            filled += count
        return filled

    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def size_bytes(self) -> int:
        return os.fstat(self._fd).st_size

    def state(self) -> FileState:
        said = os.fstat(self._fd)
        return FileState(said.st_size, said.st_ctime_ns)

    def in_memory(self, start: int, end: int) -> bool:
        return residence.in_memory(self._fd, start, end)

    def taken_bytes(self) -> int:
        return os.fstat(self._fd).st_blocks * 512

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1  # a late reader must not hit another file
        try:
            os.close(fd)
        except OSError as error:  # of bytes written before, on a network's disk; it is closed
            if error.errno == errno.EBADF:
                raise


class NvmeDisk:
    """A data directory (see disk.base.Disk).

    Raises:
        OSError: the directory cannot be made or written, or another node holds it
        (BlockingIOError).
    """

    def __init__(self, directory: Path) -> None:
        self._blocks = directory / "blocks"
        self._blocks.mkdir(parents=True, exist_ok=True)
        self._lock_fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(self._lock_fd, b"%d\n" % os.getpid(), 0)
        except OSError:
            os.close(self._lock_fd)
            raise
        self._directory = directory
        self._prefix = f"{self._blocks}/"

    @property
    def name(self) -> str:
        return str(self._directory)

    def open(self, block_id: bytes) -> NvmeFile:
        return NvmeFile(os.open(self._path(block_id), os.O_RDWR | os.O_CLOEXEC))

    def create(self, block_id: bytes) -> NvmeFile:
        path = self._path(block_id)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return NvmeFile(os.open(path, flags, 0o600))
        except (FileNotFoundError, NotADirectoryError):
            folder = os.path.dirname(path)
            _clear(folder)
            os.makedirs(folder, exist_ok=True)
            return NvmeFile(os.open(path, flags, 0o600))

    def unlink(self, block_id: bytes) -> None:
        path = self._path(block_id)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except IsADirectoryError:  # not ours, and in our way
            shutil.rmtree(path)

    def space(self) -> Space:
        said = os.statvfs(self._lock_fd)
        return Space(said.f_blocks * said.f_frsize, said.f_bavail * said.f_frsize)

    def scan(self) -> Iterator[bytes]:
        for shard in range(256):
            folder = self._blocks / f"{shard:02x}"
            _clear(folder)
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    block_id = _block_id(entry.name)
                    if block_id is not None and block_id[0] == shard:
                        yield block_id
                    elif entry.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(entry.path)

    def close(self) -> None:
        os.close(self._lock_fd)

    def _path(self, block_id: bytes) -> str:
        name = block_id.hex()
        return f"{self._prefix}{name[:2]}/{name}{_SUFFIX}"


def _clear(folder: str | Path) -> None:
    """Remove what stands where a folder of ours belongs and is none: a file, a pipe, a link that
    leads nowhere.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder)


def _block_id(file_name: str) -> bytes | None:
    stem = file_name.removesuffix(_SUFFIX)
    try:
        raw = bytes.fromhex(stem)
    except ValueError:
        return None
    return raw if len(raw) == 16 and raw.hex() + _SUFFIX == file_name else None
