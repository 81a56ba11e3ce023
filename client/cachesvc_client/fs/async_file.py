"""A file of the asynchronous face: the same pinned reads, awaited, and writes by the same rules.

Rules: a write or a close that is cancelled ends when its request at the origin has ended, and then
leaves nothing; but an object that this request made whole stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fsspec.asyn import AbstractAsyncStreamedFile

from cachesvc_client.fs import writing
from cachesvc_client.pinned import PinnedObject


class AsyncCacheFile(AbstractAsyncStreamedFile):  # type: ignore[misc]
    """Made by `open_async`. `await read`, `await write`, `await close`."""

    def __init__(
        self, fs: Any, path: str, mode: str, block_size: int, pinned: PinnedObject | None
    ) -> None:
        self._pinned = pinned
        self._upload: writing.Upload | None = None
        size = pinned.size_bytes if pinned else None
        super().__init__(fs, path, mode, block_size, size=size, cache_type="none")

    async def _fetch_range(self, start: int, end: int) -> bytes:
        assert self._pinned is not None, "opened for reading"
        data: bytes = await self.fs.threads.run(self._pinned.read, start, min(end, self.size))
        return data

    async def _initiate_upload(self) -> None:
        if not self.forced:
            async with self._all_or_nothing():
                await self.fs.threads.finish(self._begin)

    async def _upload_chunk(self, final: bool = False) -> bool:
        finish, data = self.fs.threads.finish, self.buffer.getvalue()
        try:
            async with self._all_or_nothing():
                if self._upload is None:
                    await finish(writing.put, self.fs.client, self.path, data)
                elif data:
                    self.blocksize *= await finish(self._upload.part, data)
                if final and self._upload is not None:
                    await finish(self._complete, self._upload)
        finally:
            if final:
                await finish(self.fs.written, self.path)
        return True

    # On a thread, so that what is made at the origin is known here, whoever is cancelled.

    def _begin(self) -> None:
        self._upload = writing.Upload(self.fs.client, self.path)

    def _complete(self, upload: writing.Upload) -> None:
        upload.complete()
        self._upload = None

    @asynccontextmanager
    async def _all_or_nothing(self) -> AsyncIterator[None]:
        """What fails within closes the file, of which nothing is left."""
        try:
            yield
        except BaseException:
            await self._discard()
            raise

    async def _discard(self) -> None:
        """What was written is forgotten."""
        self.closed = True
        upload, self._upload = self._upload, None
        if upload is not None:
            await self.fs.threads.finish(upload.abort)

    async def close(self) -> None:
        """Of a file that is written: the object is there when this returns."""
        if self.closed:
            return
        try:
            if self.mode != "rb" and not self.forced:
                await self.flush(force=True)
        finally:
            self.closed = True

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None and self.mode != "rb" and not self.closed:
            await self._discard()
        await self.close()
