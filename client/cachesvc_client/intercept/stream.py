"""The bytes of one answer, in order: what is at hand, and what to fetch next.

Story: a body holds one window of bytes at a time; windows double from the first to the largest, so
that a reader of a few bytes costs little and a reader of all of them few requests. Whoever asks
for more than a window gets it in one fetch, as large as asked for; the little that is at hand is
then fetched once more, which costs less than a copy of all the rest behind it.

Rules: pure. Bytes are handed out once and in order; a window that is not of the length asked for
is refused.
"""

from __future__ import annotations

MAX_WINDOW_BYTES = 8 << 20
_FIRST_BYTES = 1 << 20


def first_window(start: int, end: int) -> int:
    """Where the first window of `[start, end)` ends: all that fits into one, else a little."""
    return end if end - start <= MAX_WINDOW_BYTES else start + _FIRST_BYTES


class Stream:
    """See the head of this file. first: the bytes from `start` on that are at hand."""

    def __init__(self, start: int, end: int, first: bytes) -> None:
        self.start = start
        self.end = end
        self._at_hand = first
        self._offset = 0
        self._beyond = start + len(first)
        self._window_bytes = 2 * _FIRST_BYTES

    @property
    def position(self) -> int:
        """The byte of the object that is handed out next."""
        return self._beyond - len(self._at_hand) + self._offset

    @property
    def over(self) -> bool:
        return self.position >= self.end

    def missing(self, amount: int | None) -> tuple[int, int] | None:
        """What to fetch, `[start, end)`, before `amount` bytes (None: all) can be taken whole."""
        left_bytes = self._beyond - self.position
        wanted = self.end - self.position
        if amount is not None and amount >= 0:
            wanted = min(wanted, amount)
        if wanted <= left_bytes:
            return None
        if wanted > max(MAX_WINDOW_BYTES, 4 * left_bytes):
            self._at_hand, self._offset = b"", 0
            self._beyond -= left_bytes
            return self._beyond, self._beyond + wanted
        length_bytes = wanted - left_bytes
        if amount is not None:
            length_bytes = max(length_bytes, self._window_bytes)
            self._window_bytes = min(2 * self._window_bytes, MAX_WINDOW_BYTES)
        return self._beyond, min(self.end, self._beyond + length_bytes)

    def take(self, amount: int | None, fetched: bytes = b"") -> bytes:
        """The next `amount` bytes (None: all). fetched: what `missing` asked for."""
        taken = self._cut(amount)
        if not fetched:
            return taken
        self._at_hand, self._offset = fetched, 0
        self._beyond += len(fetched)
        if amount is None or amount < 0:
            return taken + self._cut(None) if taken else self._cut(None)
        rest = self._cut(amount - len(taken))
        return taken + rest if taken else rest

    def _cut(self, amount: int | None) -> bytes:
        begin = self._offset
        stop = len(self._at_hand)
        if amount is not None and amount >= 0:
            stop = min(stop, begin + amount)
        piece = self._at_hand if stop - begin == len(self._at_hand) else self._at_hand[begin:stop]
        if stop == len(self._at_hand):
            self._at_hand, self._offset = b"", 0
        else:
            self._offset = stop
        return piece

    def drop(self) -> None:
        """Let go of what is at hand, and promise nothing more."""
        self._at_hand, self._offset = b"", 0
        self._beyond = self.end
