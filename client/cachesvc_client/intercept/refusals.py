"""Objects that the cache cannot answer for, left to S3 for a while without a question.

Story: a weak ETag, or nodes whose S3 is another one with the same names, would cost every read a
HEAD, a fill and a message to all nodes, each time for nothing. What cannot be cached is refused at
once; a mismatch, which an overwrite brings about as well, only if the next read finds one too.

Rules: as `FieldTable`, bounded and without a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from cachesvc.core.types import ObjectName

REFUSED_S = 60.0
SETTLE_S = 1.0  # reads that began before the nodes were told of an overwrite
MAX_COUNT = 20_000


class Refusals:
    """The objects refused last. clock: monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float], max_count: int = MAX_COUNT) -> None:
        self._clock = clock
        self._max_count = max_count
        self._until: dict[ObjectName, float] = {}

    def hold(self, name: ObjectName) -> bool:
        """Whether reads of the object go to S3 now."""
        return self._clock() < self._until.get(name, 0.0)

    def refuse(self, name: ObjectName) -> None:
        """The cache cannot have the object: REFUSED_S from now on."""
        self._put(name, self._clock() + REFUSED_S)

    def mismatch(self, name: ObjectName) -> None:
        """Nodes and S3 do not agree; for the second time without a `clear` they are refused."""
        since = self._until.get(name)
        if since is None:
            self._put(name, self._clock())
        elif self._clock() >= since + SETTLE_S:
            self.refuse(name)

    def clear(self, name: ObjectName) -> None:
        """The cache answered, or the object was written."""
        self._until.pop(name, None)

    def _put(self, name: ObjectName, until: float) -> None:
        self._until.pop(name, None)
        self._until[name] = until
        while len(self._until) > self._max_count:
            with suppress(StopIteration, RuntimeError):  # another thread was faster
                self._until.pop(next(iter(self._until)), None)

    def __len__(self) -> int:
        return len(self._until)
