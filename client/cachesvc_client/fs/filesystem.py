"""`CacheFileSystem`: fsspec's file system over the cache.

Story: the blocking methods here (`info`, `cat_file`, ...) do the work, in the thread that calls
them; face.py runs them for event loops. Everything else (`get`, `put`, `copy`, `glob`, `walk`, ...)
is made of these by fsspec itself.

Rules
- Bytes and versions come from the cache; what is listed or written, from and to the origin.
- Whatever was written, copied or deleted here is looked up anew by its next reader, everywhere.
- An instance is its options: pickled, hashed and tokenised alike in every process, and used on in
  forked children.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from weakref import finalize

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.core import get_compression
from fsspec.utils import isfilelike, tokenize

from cachesvc.core.errors import ObjectChanged, ObjectNotFound, RangeError
from cachesvc.core.types import ObjectVersion
from cachesvc_client.client import CacheClient
from cachesvc_client.config import settings_names
from cachesvc_client.fs import listing, writing
from cachesvc_client.fs.async_file import AsyncCacheFile
from cachesvc_client.fs.changes import Changes
from cachesvc_client.fs.face import AsyncFace
from cachesvc_client.fs.file import CacheBufferedFile, TextFile
from cachesvc_client.fs.listing import Info, directory_info, file_info
from cachesvc_client.fs.listings import Listings
from cachesvc_client.fs.paths import split, uri
from cachesvc_client.fs.ranges import Bounds, bounded, read_joined
from cachesvc_client.fs.readahead import PacedCache
from cachesvc_client.fs.settings import split_options
from cachesvc_client.pinned import PinnedObject
from cachesvc_client.threads import Threads

LISTINGS_EXPIRY_S = 10  # as old as a version may be, unless told otherwise
_GET_BYTES = 32 << 20
_TRIES = 4  # where the object changes while it is read
_MODES = ("rb", "wb", "ab", "xb")
_OF_TEXT = ("encoding", "errors", "newline")  # options of a text file
_OF_PROCESS = ("asynchronous", "loop")  # options that say nothing of what is read


class CacheFileSystem(Changes, AsyncFace):
    """S3 through the cache; paths are `bucket/key`.

    endpoint, origin, token, and the other settings: as of CacheClient. Of s3fs, key, secret, anon,
    profile, endpoint_url and client_kwargs are understood as parts of `origin`, and
    default_block_size. default_cache_type: of files, "paced", which reads ahead where reads go on.

    Raises FileNotFoundError, PermissionError, FileExistsError, and for any other failure OSError.
    """

    protocol: Any = ("cachesvc", "s3", "s3a")
    root_marker = ""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        origin: dict[str, Any] | None = None,
        default_block_size: int | None = None,
        default_cache_type: str = PacedCache.name,
        asynchronous: bool = False,
        loop: Any = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        settings, s3 = split_options(options, settings_names())
        super().__init__(asynchronous, loop, batch_size=batch_size)
        believed = options.get("use_listings_cache", True)
        expiry_s = options.get("listings_expiry_time", LISTINGS_EXPIRY_S) if believed else 0
        self.dircache = Listings(expiry_s, options.get("max_paths"))
        self.client = CacheClient(endpoint, origin={**s3, **(origin or {})} or None, **settings)
        finalize(self, self.client.close)
        self._readers = Threads()
        self._block_bytes = default_block_size
        self._cache_type = default_cache_type

    @property
    def blocksize(self) -> int:
        """The block size of files in bytes: the cluster's, unless one was given."""
        return self._block_bytes or self.client.block_bytes

    # -- what is there

    def info(self, path: str, refresh: bool = False, **_: Any) -> Info:
        """name, size, type, and of a file ETag and LastModified; refresh: asks the origin."""
        path = self._strip_protocol(path)
        bucket, key = split(path)
        if not path:
            return directory_info(path)
        if key:
            if refresh:
                self.client.invalidate(uri(path))
            with suppress(ObjectNotFound):
                found = self.client.stat(uri(path))
                return file_info(path, found.size, found.etag, found.last_modified)
        if listing.is_directory(self.client, bucket, key):
            return directory_info(path)
        raise FileNotFoundError(f"{uri(path)}: the origin has no such object or directory")

    def exists(self, path: str, **options: Any) -> bool:
        """Whether there is an object or a directory. Raises as `info` does, but for that."""
        try:
            self.info(path, **options)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        """Whether it is a directory."""
        try:
            return str(self.info(path)["type"]) == "directory"
        except FileNotFoundError:
            return False

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **_: Any) -> list[Any]:
        """What stands in a directory: infos, or names; of a file, the file itself."""
        path = self._strip_protocol(path)
        found = None if refresh else self.dircache.get(path)
        if found is None:
            found = self.dircache.taken(path, lambda: self._listed(path))
        if not found and split(path)[1] and (one := self.info(path))["type"] == "file":
            return [one if detail else path]
        return list(found) if detail else sorted(info["name"] for info in found)

    def _listed(self, path: str) -> list[Info]:
        bucket, key = split(path)
        return listing.children(self.client, bucket, key) if path else listing.buckets(self.client)

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        prefix: str = "",
        **_: Any,
    ) -> Any:
        """All files below a directory, in one listing where no depth is given: names, or infos by
        name. prefix: only of names, right in the directory, that begin with it.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        bucket, key = split(path)
        if path and maxdepth is None:
            files, folders = listing.below(self.client, bucket, key, prefix)
        else:
            files, folders = self._levels(path, maxdepth, prefix)
        if path and not files and not folders and not prefix:
            with suppress(FileNotFoundError):
                one = self.info(path)
                (files if one["type"] == "file" else folders).append(one)
        elif path and withdirs:
            folders.append(directory_info(path))
        found = {info["name"]: info for info in (*(folders if withdirs else ()), *files)}
        return {name: found[name] for name in sorted(found)} if detail else sorted(found)

    def _levels(
        self, path: str, maxdepth: int | None, prefix: str
    ) -> tuple[list[Info], list[Info]]:
        """Directory by directory, which lists nothing that is deeper."""
        files: list[Info] = []
        folders: list[Info] = []
        if path and prefix:
            there = listing.children(self.client, *split(path), prefix)
        else:
            there = [one for one in self.ls(path) if one["name"] != path]
            there = [one for one in there if _last(one["name"]).startswith(prefix)]
        for one in there:
            (folders if one["type"] == "directory" else files).append(one)
        if maxdepth is None or maxdepth > 1:
            for folder in list(folders):
                deeper = self._levels(folder["name"], maxdepth and maxdepth - 1, "")
                files += deeper[0]
                folders += deeper[1]
        return files, folders

    def modified(self, path: str) -> Any:
        """When the object was changed, as a datetime with a time zone."""
        return self._file(path)["LastModified"]

    def ukey(self, path: str) -> str:
        """What differs whenever the object's bytes may, the same in every process."""
        info = self._file(path)
        return str(tokenize(info["name"], info["ETag"], info["size"]))

    def checksum(self, path: str) -> int:
        """`ukey` as a number."""
        return int(self.ukey(path), 16)

    def _file(self, path: str) -> Info:
        info = self.info(path)
        if info["type"] != "file":
            raise IsADirectoryError(f"{uri(info['name'])} is a directory")
        return info

    # -- bytes

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """Bytes `[start, end)` as a slice would take them: negative ones count from the end."""
        where = self._object(path)
        if (start or 0) < 0 or (end is not None and end < 0):
            return self._cut(where, [(start, end)])[0]
        if end is not None and end <= (start or 0):
            self.client.stat(where)
            return b""
        try:
            return self.client.read(where, start or 0, end)
        except RangeError:
            return b""

    def cat_ranges(
        self,
        paths: Any,
        starts: Any,
        ends: Any,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Many ranges of many objects, in order: one read for each object, of one version of it,
        and in it one request to each owner of up to 1024 ranges. fsspec's max_gap is not needed.
        """
        if not isinstance(paths, list):
            raise TypeError(f"paths is {type(paths).__name__}: give a list")
        first = starts if isinstance(starts, Sequence) else [starts] * len(paths)
        beyond = ends if isinstance(ends, Sequence) else [ends] * len(paths)
        if not len(paths) == len(first) == len(beyond):
            raise ValueError(
                f"{len(paths)} paths, {len(first)} starts and {len(beyond)} ends: give as many each"
            )
        places: dict[str, list[int]] = {}
        for place, path in enumerate(paths):
            places.setdefault(path, []).append(place)

        def read(path: str) -> list[Any]:
            wanted = [(first[place], beyond[place]) for place in places[path]]
            try:
                return list(self._cut(self._object(path), wanted))
            except OSError as error:
                if on_error != "return":
                    raise
                return [error] * len(wanted)

        found: list[Any] = [None] * len(paths)
        for path, pieces in zip(places, self._readers.each(read, places), strict=True):
            for place, piece in zip(places[path], pieces, strict=True):
                found[place] = piece
        return found

    def _cut(self, where: str, ranges: Sequence[Bounds]) -> list[bytes]:
        """Slices of one version of an object."""
        for tries in range(_TRIES):
            pinned = self.client.pin(where)
            wanted = [bounded(start, end, pinned.size_bytes) for start, end in ranges]
            try:
                return read_joined(wanted, pinned.read_ranges)
            except ObjectChanged:
                if tries == _TRIES - 1:
                    raise
        raise AssertionError("the last try returned or raised")

    def get_file(
        self,
        rpath: str,
        lpath: Any,
        callback: Any = DEFAULT_CALLBACK,
        outfile: Any = None,
        **_: Any,
    ) -> None:
        """An object as a local file, or into one that is open; of a directory, a directory. The
        callback is told the size and of every piece; a file that could not be finished is removed.
        """
        path = self._strip_protocol(rpath)
        if isfilelike(lpath):
            outfile = lpath
        elif os.path.isdir(lpath):
            return
        elif self.isdir(path):
            os.makedirs(lpath, exist_ok=True)
            return
        pinned = self.client.pin(self._object(path))
        callback.set_size(pinned.size_bytes)
        if outfile is not None:
            _pour(pinned, outfile, callback)
            return
        os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
        with open(lpath, "wb") as file:
            try:
                _pour(pinned, file, callback)
            except BaseException:
                with suppress(OSError):
                    os.unlink(lpath)
                raise

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """See fsspec.spec.AbstractFileSystem.open.

        Raises: ValueError, LookupError, TypeError for options that are wrong, before there is a
        file; an unfinished one would be written when it is collected.
        """
        text = {name: options.pop(name) for name in _OF_TEXT if name in options}
        binary = mode if "b" in mode else mode.replace("t", "") + "b"
        if binary not in _MODES:
            raise ValueError(f"mode is {mode!r}: give 'r', 'w', 'a' or 'x', with or without 'b'")
        get_compression(path, options.get("compression"))
        if "b" in mode:
            return super().open(path, mode, **options)
        io.TextIOWrapper(io.BytesIO(), **text)
        return TextFile(super().open(path, binary, **options), **text)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_type: str | None = None,
        cache_options: dict[str, Any] | None = None,
        version: ObjectVersion | None = None,
        **_: Any,
    ) -> CacheBufferedFile:
        where = self._object(path)
        if "x" in mode and self.exists(path):
            raise FileExistsError(f"{where} is there already")
        pinned, details = None, None
        if mode == "rb":
            pinned = PinnedObject(self.client, version) if version else self.client.pin(where)
            details = _info_of(path, pinned.version)
        if mode == "rb":
            block_bytes = block_size or self.blocksize
        else:
            block_bytes = max(block_size or writing.PART_BYTES, writing.LEAST_PART_BYTES)
        return CacheBufferedFile(
            self, path, mode, block_bytes, pinned, details, autocommit=autocommit,
            cache_type=cache_type or self._cache_type, cache_options=cache_options,
        )  # fmt: skip

    async def open_async(self, path: str, mode: str = "rb", **options: Any) -> AsyncCacheFile:
        """A file whose read, write and close are awaited; modes "rb" and "wb"."""
        if mode not in ("rb", "wb") or options.get("compression"):
            raise ValueError(f"mode is {mode!r}: give 'rb' or 'wb', without compression")
        path = self._strip_protocol(path)
        where, pinned = self._object(path), None
        if mode == "rb":
            pinned = await self.threads.run(self.client.pin, where)
        return AsyncCacheFile(self, path, mode, writing.PART_BYTES, pinned)

    def _object(self, path: str) -> str:
        path = self._strip_protocol(path)
        if not split(path)[1]:
            raise IsADirectoryError(f"{uri(path)} is a bucket, and no object")
        return uri(path)

    # -- which file system it is

    @property
    def _fs_token(self) -> str:
        options = {k: v for k, v in self.storage_options.items() if k not in _OF_PROCESS}
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return str(tokenize(kind, self.storage_args, options))


def _info_of(path: str, version: ObjectVersion) -> Info:
    modified = datetime.fromtimestamp(version.last_modified_ms / 1000, UTC)
    return file_info(path, version.size_bytes, version.etag, modified)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _pour(pinned: PinnedObject, file: Any, callback: Any) -> None:
    """All of an object into an open file, through one buffer."""
    buffer = memoryview(bytearray(min(_GET_BYTES, pinned.size_bytes)))
    for start in range(0, pinned.size_bytes, _GET_BYTES):
        count = pinned.readinto(start, buffer[: pinned.size_bytes - start])
        file.write(buffer[:count])
        callback.relative_update(count)
