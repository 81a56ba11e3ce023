"""The cache as an fsspec file system: `cachesvc://bucket/key`, for pandas, dask, pyarrow, zarr, ...

Story: fsspec finds `CacheFileSystem` by the entry point `fsspec.specs`. Reads go to the cache; what
is no read (listing, writing, deleting) goes to the origin itself, and what was written is looked up
anew by whoever reads it next.

Rules: everything below is blocking code of the thin client. The asynchronous face runs it on
threads; the synchronous face runs reads in the calling thread. So there is no event loop, and
nothing of one, that a fork could break. Importing this needs fsspec; `cachesvc_client` does not.
"""

from __future__ import annotations

try:
    from cachesvc_client.fs.filesystem import CacheFileSystem
except ModuleNotFoundError as _error:
    if _error.name != "fsspec":
        raise
    raise ImportError("cachesvc:// needs fsspec: pip install '.[fsspec]' in a clone") from _error

__all__ = ["CacheFileSystem"]
