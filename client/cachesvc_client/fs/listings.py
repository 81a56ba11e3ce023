"""The listings that a file system goes on believing in: fsspec's `dircache`.

Rules
- A listing is as old as its question, and believed for `expiry_s` from then on. One that a change
  overtook, because it was asked for before and came after it, is nobody's but its asker's.
- What may not be believed any more is let go, at the latest when others come; beyond `max_count`,
  what came first goes first.
- No lock, because a child may be forked while another thread holds it: any thread may call, and
  what two of them do at once is done by one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import suppress
from typing import Any

MAX_COUNT = 10_000
Listing = list[Any]


class _Kept:
    """`valid` once no change can have overtaken it."""

    __slots__ = ("asked_s", "listing", "valid")

    def __init__(self, listing: Listing, asked_s: float) -> None:
        self.listing = listing
        self.asked_s = asked_s
        self.valid = False


class Listings(MutableMapping[str, Listing]):
    """By the directory's path. expiry_s: None for ever, 0 not at all. clock: seconds, monotonic."""

    def __init__(
        self,
        expiry_s: float | None,
        max_count: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expiry_s = float("inf") if expiry_s is None else expiry_s
        self._max_count = max_count or MAX_COUNT
        self._clock = clock
        self._kept: dict[str, _Kept] = {}  # those first that came first
        self._change = object()  # another one with each change

    def taken(self, path: str, take: Callable[[], Listing]) -> Listing:
        """What `take` lists, kept for the path."""
        change, asked_s = self._change, self._clock()
        listing = take()
        kept = _Kept(listing, asked_s)
        self._kept.pop(path, None)
        self._kept[path] = kept
        if self._change is change:
            kept.valid = True
        elif self._kept.get(path) is kept:
            self._kept.pop(path, None)
        self._let_go()
        return listing

    def forget(self, paths: Iterable[str]) -> None:
        """These directories were changed: listings that were asked for before are wrong."""
        self._change = object()
        for path in paths:
            self._kept.pop(path, None)

    def clear(self) -> None:
        """All were."""
        self._change = object()
        self._kept.clear()

    def _let_go(self) -> None:
        with suppress(RuntimeError, StopIteration):  # another thread came first, or none is left
            while len(self._kept) > self._max_count or not self._young(self._first()):
                self._kept.pop(next(iter(self._kept)), None)

    def _first(self) -> _Kept:
        return next(iter(self._kept.values()))

    def _young(self, kept: _Kept) -> bool:
        return self._clock() - kept.asked_s < self._expiry_s

    def __getitem__(self, path: str) -> Listing:
        kept = self._kept[path]
        if not kept.valid or not self._young(kept):
            raise KeyError(path)
        return kept.listing

    def __setitem__(self, path: str, listing: Listing) -> None:
        self.taken(path, lambda: listing)

    def __delitem__(self, path: str) -> None:
        del self._kept[path]

    def __iter__(self) -> Iterator[str]:
        return (path for path in list(self._kept) if path in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
