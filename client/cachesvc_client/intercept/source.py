"""Where the bytes of one answer come from: the cache, as long as it has the version, then S3.

Rules: once the cache has lost a body, the rest of it is S3's, asked for by the client itself with
If-Match, so that a body is of one version or ends with an error.
"""

from __future__ import annotations

from collections import Counter

from cachesvc.core.errors import CacheError
from cachesvc.core.types import ObjectName
from cachesvc_client.intercept.stats import STATS
from cachesvc_client.pinned import PinnedObject


class Source:
    """The bytes of one version of an object, for one body. owner: kept for as long."""

    def __init__(self, pinned: PinnedObject, owner: object) -> None:
        self._pinned = pinned
        self._owner = owner
        self._lost = False

    @property
    def name(self) -> ObjectName:
        return self._pinned.version.name

    @property
    def etag(self) -> str:
        return self._pinned.version.etag

    def cached(self, start: int, end: int) -> bytes | None:
        """Bytes `[start, end)`; None: the cache has lost them, ask S3."""
        if self._lost:
            return None
        came = Counter[str]()
        try:
            data = self.whole(self._pinned.read(start, end, came), start, end)
            STATS.came(came)
            return data
        except CacheError:
            pass
        except Exception as error:
            STATS.fault(error)
        self._lost = True
        STATS.count(rescued=1)
        return None

    def parameters(self, start: int, end: int) -> dict[str, str]:
        """How the client asks S3 for the same bytes."""
        where = {"Bucket": self.name.bucket, "Key": self.name.key}
        return where | {"Range": f"bytes={start}-{end - 1}", "IfMatch": self.etag}

    def whole(self, data: bytes, start: int, end: int) -> bytes:
        """The data, if they are as many as they should be. Raises AssertionError otherwise."""
        if len(data) != end - start:
            raise AssertionError(f"{self.name}: {len(data)} bytes came of [{start}, {end})")
        return data
