"""How slowly an answer may come before its sender counts as failed.

Rules
- LEAST_BYTES_PER_S, with a patience beyond it that a faster stretch fills up again, but never
  beyond its measure: so a sender that was quick and then drips is noticed as soon as any other.
- Only time spent waiting counts, not what the reader does with the bytes.
- Waiting that a node has announced (a pending head) is free: its origin is slow, and it says so.
- A range of the request that is answered in full earns RANGE_S: however short, the node may have
  had to fetch it, which it announces only when that takes PENDING_INTERVAL_S.

Pure: the caller measures.
"""

from __future__ import annotations

from cachesvc.core.request import LEAST_BYTES_PER_S

RANGE_S = 1.0  # above the time after which a node begins to announce that it is at work
TOO_SLOW = f"it sends fewer than {LEAST_BYTES_PER_S} bytes/s"


class Pace:
    """The pace of one answer."""

    __slots__ = ("_behind_s", "_left_s", "_patience_s")

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._left_s = patience_s
        self._behind_s = 0.0  # since the last whole message

    def came(self, count_bytes: int, waited_s: float) -> None:
        """Bytes that were waited for."""
        self._behind_s += waited_s - count_bytes / LEAST_BYTES_PER_S

    def pending(self) -> None:
        """What came last says that the node is at work."""
        self._behind_s = 0.0

    def settle(self, range_count: int = 0) -> None:
        """A message is whole, and so are that many ranges with it."""
        earned_s = range_count * RANGE_S - self._behind_s
        self._left_s = min(self._patience_s, self._left_s + earned_s)
        self._behind_s = 0.0

    @property
    def too_slow(self) -> bool:
        return self._behind_s > self._left_s
