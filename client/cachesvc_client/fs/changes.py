"""What a file system changes: written to the origin, then looked up anew.

Rules: when a method returns, whoever begins to read what it changed, in any process, sees it; also
when it raises half-way.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem

from cachesvc.core.errors import ObjectNotFound
from cachesvc_client.client import CacheClient
from cachesvc_client.fs import listing, writing
from cachesvc_client.fs.listings import Listings
from cachesvc_client.fs.paths import parents, split, uri
from cachesvc_client.threads import Threads


class Changes(AbstractFileSystem):  # type: ignore[misc]
    """The blocking methods of CacheFileSystem that change something. Modes "create" raise
    FileExistsError for what is there.
    """

    client: CacheClient
    dircache: Listings
    threads: Threads

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_: Any) -> None:
        """An object of these bytes."""
        path = self._strip_protocol(path)
        data = memoryview(value).cast("B")
        self._put(io.BytesIO(data), len(data), path, mode, lambda _count: None)

    def put_file(
        self, lpath: str, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite",
        **_: Any,
    ) -> None:  # fmt: skip
        """An object of a local file; of a local directory, nothing: S3 has none."""
        if os.path.isdir(lpath):
            return
        with open(lpath, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            callback.set_size(size_bytes)
            path = self._strip_protocol(rpath)
            self._put(file, size_bytes, path, mode, callback.relative_update)

    def _put(self, file: Any, size_bytes: int, path: str, mode: str, told: Any) -> None:
        try:
            writing.put_file(self.client, file, size_bytes, path, mode == "create", told)
        finally:
            self.written(path)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copies an object within the origin; of a directory, nothing."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        info = self.info(source, refresh=True)
        if info["type"] == "directory":
            return
        try:
            writing.copy(self.client, source, info["ETag"], info["size"], target)
        finally:
            self.written(target)

    def rm_file(self, path: str) -> None:
        """Deletes an object; no error if it is not there."""
        path = self._strip_protocol(path)
        try:
            writing.delete(self.client, [path])
        finally:
            self.written(path)

    async def _rm(
        self, path: Any, recursive: bool = False, maxdepth: int | None = None, **_: Any
    ) -> None:
        """Deletes objects, up to 1000 in one request; recursive: whole directories and buckets."""
        paths = await self._expand_path(path, recursive=recursive, maxdepth=maxdepth)
        keyed = [one for one in paths if split(one)[1]]
        marks = [one + "/" for one in keyed] if recursive else []
        try:
            await self.threads.finish(writing.delete, self.client, keyed + marks)
        finally:
            await self.threads.finish(self._written, keyed)
        for one in paths:
            if recursive and not split(one)[1]:
                await self.threads.finish(self.rmdir, one)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Makes the path's bucket, if it is not there; below it, S3 needs no directories.

        Raises: FileExistsError for a bucket that is there; FileNotFoundError where the bucket above
        is not, and is not to be made.
        """
        path = self._strip_protocol(path)
        bucket, key = split(path)
        if self._has_bucket(bucket):
            if not key:
                raise FileExistsError(f"{uri(bucket)} is there already")
            return
        if key and not create_parents:
            raise FileNotFoundError(f"{uri(bucket)}: there is no such bucket")
        region = (self.client.config.origin or {}).get("region_name")
        writing.make_bucket(self.client, bucket, region)
        self.dircache.forget([""])

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """As `mkdir`, with what is above."""
        try:
            self.mkdir(path)
        except FileExistsError:
            if not exist_ok:
                raise

    def rmdir(self, path: str) -> None:
        """Removes an empty bucket, or the mark of a directory."""
        path = self._strip_protocol(path)
        bucket, key = split(path)
        if key:
            writing.delete(self.client, [path + "/"])
        else:
            writing.remove_bucket(self.client, bucket)
        self._forget_listings(path)

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        """An empty object; truncate False leaves one that is there as it is."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")

    def written(self, path: str) -> None:
        """The object was changed: forget what was known, here and at the nodes."""
        self._forget_listings(path)
        if split(path)[1]:
            self.client.invalidate(uri(path))

    def _written(self, paths: Sequence[str]) -> None:
        """As `written`, of many objects."""
        self.dircache.forget({above for path in paths for above in (path, *parents(path))})
        self.client.invalidate_many([uri(path) for path in paths])

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget listings and versions: of a path, with the directories above it, also at the
        nodes; of None, all that this instance knows (nodes go on believing for `revalidate`).
        """
        if path is None:
            self.dircache.clear()
            self.client.forget()
        else:
            self.written(self._strip_protocol(path))

    def _forget_listings(self, path: str) -> None:
        self.dircache.forget((path, *parents(path)))

    def _has_bucket(self, bucket: str) -> bool:
        try:
            return listing.is_directory(self.client, bucket, "")
        except ObjectNotFound:
            return False
