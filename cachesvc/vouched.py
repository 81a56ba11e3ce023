"""Pages of an open block file that were found right here: while nobody has written the file and
they are in memory, the kernel may send them without another check.

Rules
- A file's state is its size and time of change, which every write and truncation moves on (through
  a shared mapping, only the first one to a page that is not dirty yet: whoever maps block files to
  write into them is not found out in time). A file in another state is vouched for no more.
- Nothing is noted of a file that changed during the check, nor within SETTLED_NS before it: until
  then a second write may have the same time.
- Bytes that come from the disk anew are others than those that were checked: where a page asked for
  is not in memory, nothing of the file is vouched for any more, and nothing is for longer than
  TRUST_S. What is left is decision 16's to tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from cachesvc.disk.base import BlockFile, FileState

SETTLED_NS = 3_000_000_000
TRUST_S = 60.0


class _Known(NamedTuple):
    """state: of the file. since_s: when the first of the pages was checked. pages: a bitmap."""

    state: FileState | None
    since_s: float
    pages: int


_NOTHING = _Known(None, 0.0, 0)


class Vouched:
    """What is known of one open file. Any thread may use it.

    clock_ns: of files' times. clock_s: of how long something is trusted.
    """

    __slots__ = ("_changing", "_clock_ns", "_clock_s", "_known")

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.time_ns,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock_ns = clock_ns
        self._clock_s = clock_s
        self._known = _NOTHING
        self._changing = Lock()

    def holds(self, file: BlockFile, pages: int, start: int, end: int) -> FileState | None:
        """The state in which the file is, if these pages of it, its bytes `[start, end)`, may leave
        unchecked; else None.

        Raises: OSError.
        """
        known = self._known
        if pages & ~known.pages:
            return None
        if (
            self._clock_s() - known.since_s <= TRUST_S
            and file.state() == known.state
            and file.in_memory(start, end)
        ):
            return known.state
        with self._changing:
            self._known = _NOTHING
        return None

    def note(self, file: BlockFile, state: FileState, pages: int) -> None:
        """The pages were found right; `state` is the file's from before they were read.

        Raises: OSError.
        """
        if self._clock_ns() - state.changed_ns < SETTLED_NS or file.state() != state:
            return
        with self._changing:
            known, now_s = self._known, self._clock_s()
            if known.state != state or now_s - known.since_s > TRUST_S:
                known = _Known(state, now_s, 0)
            self._known = known._replace(pages=known.pages | pages)
