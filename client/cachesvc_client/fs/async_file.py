"""A file of the asynchronous face: the same pinned reads, awaited, and writes by the same rules."""

from __future__ import annotations

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
            self._upload = await self.fs.threads.run(writing.Upload, self.fs.client, self.path)

    async def _upload_chunk(self, final: bool = False) -> bool:
        run, data = self.fs.threads.run, self.buffer.getvalue()
        try:
            if self._upload is None:
                await run(writing.put, self.fs.client, self.path, data)
            else:
                if data:
                    self.blocksize *= await run(self._upload.part, data)
                if final:
                    await run(self._upload.complete)
        except BaseException:
            await self._discard()
            raise
        finally:
            if final:
                await run(self.fs.written, self.path)
        return True

    async def _discard(self) -> None:
        """Nothing is left of what was written."""
        self.closed = True
        if self._upload is not None:
            await self.fs.threads.run(self._upload.abort)

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
