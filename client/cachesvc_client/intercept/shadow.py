"""Shadow mode: a body that S3 sends, compared with what the cache would have sent.

Story: while the caller reads S3's bytes, as many are read from the cache, a window at a time, and
compared; a caller that stops early has compared what it read.

Rules: the answer is S3's. Only bytes of the very version that S3 sends are compared; another
version in the cache is counted (`stale`) and is no difference. Memory: one window.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from cachesvc.core.errors import CacheError
from cachesvc.core.types import ObjectName
from cachesvc_client.client import CacheClient
from cachesvc_client.intercept.stats import STATS, log
from cachesvc_client.intercept.stream import Stream, first_window
from cachesvc_client.pinned import PinnedObject

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/")


class Comparison:
    """One body under comparison. headers: of S3's answer; s3_seconds: what it took to come."""

    def __init__(
        self, cache: CacheClient, name: ObjectName, headers: Mapping[str, str], s3_seconds: float
    ) -> None:
        said = {name.lower(): value for name, value in headers.items()}
        match = _CONTENT_RANGE.match(said.get("content-range", ""))
        self._start = int(match[1]) if match else 0
        self._end = int(match[2]) + 1 if match else int(said["content-length"])
        self._etag = said["etag"]
        self._cache = cache
        self._name = name
        self._mine: tuple[PinnedObject, Stream] | None = None
        self._over = False
        STATS.count(compared=1, s3_seconds=s3_seconds)

    def feed(self, theirs: bytes, s3_seconds: float) -> None:
        """The next bytes of the body as S3 sent them, and how long that took. Never raises."""
        if self._over or not theirs:
            return
        began = time.monotonic()
        try:
            position, mine = self._next(len(theirs))
        except CacheError:
            self._over = True
            STATS.count(unread=1)
            return
        except Exception as error:
            self._over = True
            STATS.fault(error)
            return
        if mine is None:
            self._over = True
            STATS.count(stale=1)
            return
        seconds = time.monotonic() - began
        STATS.count(compared_bytes=len(theirs), s3_seconds=s3_seconds, cache_seconds=seconds)
        if mine != theirs:
            self._over = True
            STATS.count(differing=1)
            log.error(
                "shadow: %s, version %s: the cache differs from S3 in bytes [%d, %d)",
                self._name, self._etag, position, position + len(theirs),
            )  # fmt: skip

    def _next(self, length_bytes: int) -> tuple[int, bytes | None]:
        """Where the next bytes begin, and the cache's; None: it has another version."""
        if self._mine is None:
            beyond = first_window(self._start, self._end)
            pinned, first = self._cache.begin(str(self._name), self._start, beyond)
            if pinned.version.etag != self._etag:
                return self._start, None
            self._mine = pinned, Stream(self._start, self._end, first)
        pinned, stream = self._mine
        position = stream.position
        missing = stream.missing(length_bytes)
        return position, stream.take(length_bytes, pinned.read(*missing) if missing else b"")
