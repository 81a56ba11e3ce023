"""Pages of passed files that a client has checked already, and that nobody has written since.

Story: `passed.accept` takes the State of a file whose pages have been laid, and asks `holds`
whether they were found right before, in that state. If not, it checks them, and has `note` remember
it. So whoever maps the same bytes again pays for the mapping and for nothing else.

Rules
- A file's state is its inode, size and time of change, which every write, truncation and change of
  its name moves on, and nobody can set back (through a shared mapping, only the first write to a
  page that is not dirty yet; no node writes like that). A file in another state is a file unknown.
- Nothing is noted of a file that changed during the check, nor within SETTLED_NS before it: until
  then a second write may have the same time (file systems that count in ticks of 4 or 10 ms, or in
  seconds), or a write that has its time already may still be under way.
- What a node claims has to be what was checked: the same sums, of pages cut in the same way.
- Whoever had to read a page from the disk just now does not ask here, but checks.
- At most MAX_FILE_COUNT files; the one that was not asked for the longest is forgotten.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.types import PAGES_PER_BLOCK

MAX_FILE_COUNT = 65_536  # as many as a process may map at a time; about 1.5 KB each, if full
SETTLED_NS = 3_000_000_000


class State(NamedTuple):
    """What a file is and when it was changed last, in nanoseconds of the system's clock."""

    device: int
    inode: int
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, file: int) -> State:
        """Raises OSError."""
        found = os.fstat(file)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a node says of adjacent pages of a file.

    offset: of the first page, in bytes of the file. page_bytes: of a page. end: where in the file
    the object ends, whose last page may be short. checksums: one after another.
    """

    offset: int
    page_bytes: int
    end: int
    checksums: bytes

    @property
    def first_page(self) -> int:
        return self.offset // self.page_bytes

    @property
    def page_count(self) -> int:
        return len(self.checksums) // CHECKSUM_BYTES

    @property
    def numbered(self) -> bool:
        """Whether these are pages of a block file, numbered from its beginning on."""
        whole = self.offset % self.page_bytes == 0
        return whole and self.first_page + self.page_count <= PAGES_PER_BLOCK


class _Pages:
    """The pages of one file that were right: a bitmap, and their checksums by number."""

    __slots__ = ("end", "page_bytes", "right", "state", "sums")

    def __init__(self, state: State, claim: Claim) -> None:
        self.state = state
        self.page_bytes = claim.page_bytes
        self.end = claim.end
        self.right = 0
        self.sums = bytearray(PAGES_PER_BLOCK * CHECKSUM_BYTES)

    def of(self, state: State, claim: Claim) -> bool:
        """Whether it is the same file, unchanged, cut into pages in the same way."""
        return (self.state, self.page_bytes, self.end) == (state, claim.page_bytes, claim.end)

    def holds(self, claim: Claim) -> bool:
        first = claim.first_page * CHECKSUM_BYTES
        known = self.sums[first : first + len(claim.checksums)]
        return _bitmap(claim) & ~self.right == 0 and known == claim.checksums

    def add(self, claim: Claim) -> None:
        first = claim.first_page * CHECKSUM_BYTES
        self.sums[first : first + len(claim.checksums)] = claim.checksums
        self.right |= _bitmap(claim)


def _bitmap(claim: Claim) -> int:
    return ((1 << claim.page_count) - 1) << claim.first_page


class Verified:
    """The pages that one client has checked. Any thread may use it.

    inherited: of the parent process, whose checks hold here too. clock_ns: of files' times.
    """

    def __init__(
        self, inherited: Verified | None = None, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        files = inherited._files.copy() if inherited else None
        self._files: OrderedDict[tuple[int, int], _Pages] = files or OrderedDict()
        self._clock_ns = clock_ns
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._files)

    def holds(self, state: State, claim: Claim) -> bool:
        """Whether all these pages were found right in a file in this state."""
        key = state.device, state.inode
        with self._lock:
            pages = self._files.get(key)
            if pages is None or not claim.numbered or not pages.of(state, claim):
                return False
            self._files.move_to_end(key)
            return pages.holds(claim)

    def note(self, file: int, state: State, claim: Claim) -> None:
        """The pages were found right; `state` is the file's from before the check."""
        age_ns = self._clock_ns() - state.changed_ns
        if not claim.numbered or age_ns < SETTLED_NS or State.of(file) != state:
            return
        key = state.device, state.inode
        with self._lock:
            pages = self._files.get(key)
            if pages is None or not pages.of(state, claim):
                pages = self._files[key] = _Pages(state, claim)
            self._files.move_to_end(key)
            pages.add(claim)
            while len(self._files) > MAX_FILE_COUNT:
                self._files.popitem(last=False)
