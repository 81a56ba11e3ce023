"""The versions that a client may go on believing in, each until its time is over. Pure: no I/O.

Rules: a node says for how long from the sending of a request its answer may be believed; that is
all the client adds nothing to, so a version is never older here than it may be at its keeper.
Bounded, least recently used first; any thread may call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from cachesvc.core.types import ObjectName, ObjectVersion


class VersionCache:
    """At most `max_count` versions. `clock` gives seconds, monotonic."""

    def __init__(self, max_count: int, clock: Callable[[], float]) -> None:
        self._max_count = max_count
        self._clock = clock
        self._entries: OrderedDict[ObjectName, tuple[ObjectVersion, float]] = OrderedDict()
        self._lock = Lock()

    def get(self, name: ObjectName) -> ObjectVersion | None:
        """The version of an object, if it may still be believed."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                return None
            version, until_s = entry
            if self._clock() >= until_s:
                del self._entries[name]
                return None
            self._entries.move_to_end(name)
            return version

    def put(self, version: ObjectVersion, until_s: float) -> None:
        """Believe in a version until the clock shows `until_s`."""
        if until_s <= self._clock():
            return
        with self._lock:
            self._entries[version.name] = version, until_s
            self._entries.move_to_end(version.name)
            while len(self._entries) > self._max_count:
                self._entries.popitem(last=False)

    def forget(self, name: ObjectName) -> None:
        """Ask again next time."""
        with self._lock:
            self._entries.pop(name, None)

    def clear(self) -> None:
        """Ask again for all."""
        with self._lock:
            self._entries.clear()
