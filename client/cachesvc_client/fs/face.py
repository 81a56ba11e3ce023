"""The asynchronous face: each primitive of fsspec runs its blocking twin on a thread.

Rules: nothing is decided here. What changes something is over when whoever awaits it goes on, also
when he was cancelled: else it would land on what he does next. No event loop is begun before
fsspec's own synchronous methods, which are made of coroutines, need one; a forked child has fsspec
begin its own.
"""

from __future__ import annotations

import os
from typing import Any

from fsspec.asyn import AsyncFileSystem, get_loop

from cachesvc_client.threads import Threads


class AsyncFace(AsyncFileSystem):  # type: ignore[misc]
    """What CacheFileSystem is besides its blocking methods."""

    def __init__(self, asynchronous: bool, loop: Any, **options: Any) -> None:
        super().__init__(asynchronous=True, **options)  # so that it begins no loop
        self.asynchronous = asynchronous
        self._loop = loop
        self.threads = Threads()

    @property
    def loop(self) -> Any:
        """Where fsspec's own synchronous methods run: the loop that was given, in the process that
        it was given in, else fsspec's.
        """
        if self.asynchronous or (self._loop is not None and self._pid == os.getpid()):
            return self._loop
        return get_loop()

    async def _info(self, path: str, **options: Any) -> Any:
        return await self.threads.run(self.info, path, **options)

    async def _ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        return await self.threads.run(self.ls, path, detail, **options)

    async def _find(self, path: str, maxdepth: int | None = None, **options: Any) -> Any:
        return await self.threads.run(self.find, path, maxdepth, **options)

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> Any:
        return await self.threads.run(self.cat_file, path, start, end, **options)

    async def _cat_ranges(self, paths: Any, starts: Any, ends: Any, **options: Any) -> Any:
        return await self.threads.run(self.cat_ranges, paths, starts, ends, **options)

    async def _get_file(self, rpath: str, lpath: Any, **options: Any) -> None:
        await self.threads.run(self.get_file, rpath, lpath, **options)

    async def _put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        await self.threads.finish(self.put_file, lpath, rpath, **options)

    async def _pipe_file(self, path: str, value: Any, **options: Any) -> None:
        await self.threads.finish(self.pipe_file, path, value, **options)

    async def _cp_file(self, path1: str, path2: str, **options: Any) -> None:
        await self.threads.finish(self.cp_file, path1, path2, **options)

    async def _rm_file(self, path: str, **options: Any) -> None:
        await self.threads.finish(self.rm_file, path, **options)

    async def _mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        await self.threads.finish(self.mkdir, path, create_parents, **options)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        await self.threads.finish(self.makedirs, path, exist_ok)

    async def _rmdir(self, path: str) -> None:
        await self.threads.finish(self.rmdir, path)
