"""How far a file reads ahead: hardly where it jumps about, further and further where it goes on.

A node is near, so a small read of any place is cheap and shall stay small; but a reader of lines
must not ask for every line. The window doubles from one read to the next that goes on where the
last one ended, up to the size of a block.
"""

from __future__ import annotations

from typing import Any, ClassVar

from fsspec.caching import BaseCache, register_cache

LEAST_BYTES = 64 << 10  # a page: a node reads and checks it whole, whatever is wanted of it


class PacedCache(BaseCache):  # type: ignore[misc]
    """One window of the file; by name `cache_type="paced"`."""

    name: ClassVar[str] = "paced"

    def __init__(self, blocksize: int, fetcher: Any, size: int, **_options: Any) -> None:
        super().__init__(blocksize, fetcher, size)
        self._start = 0
        self._data = b""
        self._window_bytes = 0

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = start or 0
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        end = self._start + len(self._data)
        if self._start <= start and stop <= end:
            self.hit_count += 1
            return self._data[start - self._start : stop - self._start]
        self.miss_count += 1
        goes_on = bool(self._data) and self._start <= start <= end
        twice = max(2 * self._window_bytes, 2 * LEAST_BYTES)
        self._window_bytes = min(twice, self.blocksize) if goes_on else LEAST_BYTES
        if stop - start >= self.blocksize:
            return self._asked(start, stop)
        there = self._data[start - self._start :] if goes_on else b""
        beyond = min(self.size, max(stop, start + len(there) + self._window_bytes))
        self._data = there + self._asked(start + len(there), beyond)
        self._start = start
        return self._data[: stop - start]

    def _asked(self, start: int, stop: int) -> bytes:
        self.total_requested_bytes += stop - start
        data: bytes = self.fetcher(start, stop)
        return data


register_cache(PacedCache, clobber=True)
