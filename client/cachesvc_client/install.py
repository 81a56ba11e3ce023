"""`install` and `uninstall`: programs that open `s3://` by fsspec read the cache, unchanged.

Rules: fsspec is imported by the call, not before. What was installed can be taken back; calling
either twice is the same as calling it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def install(
    endpoint: str | None = None,
    *,
    origin: Mapping[str, Any] | None = None,
    token: str | None = None,
    **settings: Any,
) -> None:
    """From now on, in this process and those forked from it, fsspec opens `s3://` and `s3a://`
    through the cluster. The settings are those of CacheClient.

    What names another S3 endpoint than the cluster's, or asks for what the cache does not know
    (versions, requester pays, encryption keys), goes to s3fs as before. Raises ImportError without
    fsspec, and what CacheClient raises for its settings.
    """
    from cachesvc_client.client import CacheClient
    from cachesvc_client.fs import s3

    CacheClient(endpoint, origin=origin, token=token, **settings).close()
    given = {"endpoint": endpoint, "origin": dict(origin) if origin else None, "token": token}
    s3.take_over({name: value for name, value in (given | settings).items() if value is not None})


def uninstall() -> None:
    """`s3://` is whose it was before `install`; file systems that were made meanwhile go on."""
    from cachesvc_client.fs import s3

    s3.give_back()
