"""What was made once and may be wanted again, within a bound of memory, by CLOCK.

Rules: entries that were not used since they were kept, or looked at, go first, oldest first. `get`
and `len` take no lock; all else does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Keepable(Protocol):
    """size_bytes: of memory, key included; does not change once it is kept. used: since it was
    last looked at.
    """

    size_bytes: int
    used: bool


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Keepable)


class Kept(Generic[K, V]):
    """Values by key, of `max_bytes` together. Any thread may use it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[K, V] = OrderedDict()
        # what is kept under a key, or None. Who uses it sets its `used`.
        self.get: Callable[[K], V | None] = self._values.get
        self._lock = Lock()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def keep(self, key: K, value: V) -> None:
        """In place of what was kept under the key."""
        with self._lock:
            old = self._values.pop(key, None)
            self._values[key] = value
            self.size_bytes += value.size_bytes - (old.size_bytes if old else 0)
            while self.size_bytes > self._max_bytes:
                oldest_key, oldest = self._values.popitem(last=False)
                if oldest.used:
                    oldest.used = False
                    self._values[oldest_key] = oldest
                else:
                    self.size_bytes -= oldest.size_bytes

    def drop(self, key: K, value: V) -> None:
        """Keep this value no more; what has replaced it stays."""
        with self._lock:
            if self._values.get(key) is value:
                del self._values[key]
                self.size_bytes -= value.size_bytes

    def drop_if(self, wrong: Callable[[V], bool]) -> None:
        """Keep no value any more of which this holds."""
        with self._lock:  # while it is listed another thread may have its turn
            items = list(self._values.items())
        for key, value in items:
            if wrong(value):
                self.drop(key, value)

    def values(self) -> list[V]:
        """All that is kept now."""
        with self._lock:
            return list(self._values.values())
