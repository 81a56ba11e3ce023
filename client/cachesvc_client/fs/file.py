"""A file of the file system: reads are pinned to one version, writes become an object at the end.

Rules: a file that was opened for reading sees the version of that moment, also in a forked child
and pickled to another process, or raises ObjectChanged. A file that is written is nowhere to be
seen before it is closed, and never if its `with` block is left by an error, nor if it could not be
opened. (Through fsspec's OpenFile and its compressors it is: they close it, and do not say why.)
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsspec.spec import AbstractBufferedFile

from cachesvc.core.types import ObjectVersion
from cachesvc_client.fs import writing
from cachesvc_client.pinned import PinnedObject

_DIRECT_BYTES = 1 << 20  # a readinto of so much is received in place


class CacheBufferedFile(AbstractBufferedFile):  # type: ignore[misc]
    """See the head of this file. `size`, `details`, `blocksize` as of any fsspec file."""

    closed: bool

    def __init__(
        self, fs: Any, path: str, mode: str, block_size: int, pinned: PinnedObject | None,
        details: dict[str, Any] | None, **options: Any,
    ) -> None:  # fmt: skip
        self._pinned = pinned
        self._upload: writing.Upload | None = None
        self._at_once: bytes | None = None
        super().__init__(
            fs, path, mode, block_size, size=pinned.size_bytes if pinned else None, **options
        )
        if details is not None:
            self.details = details
        if mode == "ab":
            with self._all_or_nothing():
                self._append()

    @property
    def version(self) -> ObjectVersion:
        """The version that is read. Raises ValueError for a file that is written."""
        if self._pinned is None:
            raise ValueError(f"{self.path} is open for writing: it has no version yet")
        return self._pinned.version

    def readinto(self, buffer: Any) -> int:
        """As many bytes as the buffer has room for, fewer only at the end."""
        view = memoryview(buffer).cast("B")
        if self._pinned is None or self.closed or len(view) < _DIRECT_BYTES:
            count: int = super().readinto(view)
            return count
        count = self._pinned.readinto(self.loc, view) if self.loc < self.size else 0
        self.loc += count
        return count

    def _fetch_range(self, start: int, end: int) -> bytes:
        assert self._pinned is not None, "opened for reading"
        return self._pinned.read(start, end)

    # -- writing

    def _append(self) -> None:
        """Begin with what is there."""
        try:
            there = self.fs.info(self.path, refresh=True)
        except FileNotFoundError:
            return
        if there["type"] == "directory":
            return  # and no object has its name
        if there["size"] < writing.LEAST_PART_BYTES:
            self.buffer.write(self.fs.cat_file(self.path))
            self.loc = self.buffer.tell()
        else:
            self._upload = writing.Upload(self.fs.client, self.path)
            self._upload.copy(self.path, there["ETag"], there["size"])
            self.loc = self.offset = there["size"]

    def _initiate_upload(self) -> None:
        if self.forced and self.buffer.tell() < writing.LEAST_PART_BYTES:
            return  # all of it at once
        self._upload = writing.Upload(self.fs.client, self.path)

    def _upload_chunk(self, final: bool = False) -> bool:
        data = self.buffer.getvalue()
        if self._upload is None:
            self._at_once = data
        elif data:
            with self._all_or_nothing():
                self.blocksize *= self._upload.part(data)
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """What was written becomes the object. Raises FileExistsError in mode "xb" if there is one
        by now.
        """
        exclusive = self.mode == "xb"
        try:
            with self._all_or_nothing():
                if self._upload is not None:
                    self._upload.complete(exclusive)
                elif self._at_once is not None:
                    writing.put(self.fs.client, self.path, self._at_once, exclusive)
            self._upload, self._at_once = None, None
        finally:
            self.fs.written(self.path)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """What fails within closes the file, of which nothing is left."""
        try:
            yield
        except BaseException:
            self.closed = True
            self.discard()
            raise

    def discard(self) -> None:
        """What was written is forgotten."""
        if self._upload is not None:
            self._upload.abort()
        self._upload, self._at_once = None, None

    def close(self) -> None:
        """Of a file that is written: the object is there when this returns."""
        if self.closed:
            return
        try:
            if not self.readable() and not self.forced:
                self.flush(force=True)
        finally:
            self.closed = True
            self.cache = None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None and not self.readable() and not self.closed:
            self.closed = True  # whatever comes in between
            self.discard()
        self.close()

    def __reduce__(self) -> Any:
        if self._pinned is None:
            raise TypeError(f"{self.path} is open for writing and cannot be pickled")
        cache_type = self.cache.name if self.cache else "none"
        return _reopened, (
            self.fs, self.path, self.blocksize, self.loc, self._pinned.version, cache_type,
        )  # fmt: skip


class TextFile(io.TextIOWrapper):
    """A text file. What was written within a `with` that is left by an error is nowhere to be
    seen either.
    """

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            file: Any = self.buffer
            file.__exit__(kind, error, traceback)
        self.close()


def _reopened(
    fs: Any, path: str, block_size: int, loc: int, version: ObjectVersion, cache_type: str
) -> Any:
    file = fs.open(path, "rb", block_size=block_size, cache_type=cache_type, version=version)
    file.seek(loc)
    return file
