"""The versions that a client may go on believing in, each until its time is over. Pure: no I/O.

Rules: a node says for how long from the sending of a request its answer may be believed; that is
all the client adds nothing to, so a version is never older here than it may be at its keeper.
Bounded, least recently used first; any thread may call. An answer that was asked for before its
object was forgotten, or before another one that is here, comes too late: it is not believed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from cachesvc.core.types import ObjectName, ObjectVersion


class _Believed(NamedTuple):
    """asked_s, until_s: by the clock, when it was asked for and how long it is believed."""

    version: ObjectVersion
    asked_s: float
    until_s: float


class VersionCache:
    """At most `max_count` versions. `clock` gives seconds, monotonic."""

    def __init__(self, max_count: int, clock: Callable[[], float]) -> None:
        self._max_count = max_count
        self._clock = clock
        self._entries: OrderedDict[ObjectName, _Believed] = OrderedDict()
        self._forgotten_s: OrderedDict[ObjectName, float] = OrderedDict()  # when, of late
        self._all_forgotten_s = float("-inf")  # as if all had been, of which that is not known
        self._lock = Lock()

    def get(self, name: ObjectName) -> ObjectVersion | None:
        """The version of an object, if it may still be believed."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                return None
            if self._clock() >= entry.until_s:
                del self._entries[name]
                return None
            self._entries.move_to_end(name)
            return entry.version

    def put(self, version: ObjectVersion, asked_s: float, until_s: float) -> None:
        """Believe in a version that was asked for at `asked_s` until the clock shows `until_s`."""
        name, now_s = version.name, self._clock()
        if until_s <= now_s:
            return
        with self._lock:
            if asked_s < self._forgotten_s.get(name, self._all_forgotten_s):
                return
            known = self._entries.get(name)
            if known is not None and known.asked_s > asked_s and now_s < known.until_s:
                return
            self._entries[name] = _Believed(version, asked_s, until_s)
            self._entries.move_to_end(name)
            while len(self._entries) > self._max_count:
                self._entries.popitem(last=False)

    def forget(self, name: ObjectName) -> None:
        """Ask again next time."""
        with self._lock:
            self._entries.pop(name, None)
            self._forgotten_s[name] = self._clock()
            self._forgotten_s.move_to_end(name)
            if len(self._forgotten_s) > self._max_count:
                _, self._all_forgotten_s = self._forgotten_s.popitem(last=False)

    def clear(self) -> None:
        """Ask again for all."""
        with self._lock:
            self._entries.clear()
            self._forgotten_s.clear()
            self._all_forgotten_s = self._clock()
