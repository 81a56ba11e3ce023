"""Whether something was asked for before: so that nothing is kept for who asks once.

Source: the doorkeeper of Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission
Policy", 2017, here of whole hashes in two generations in place of a Bloom filter.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest


class Doorkeeper:
    """Remembers what it was asked for: the last `count` different things, and up to as many before.
    Any thread may ask; a race makes it forget one, or know one for longer.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._young: set[int] = set()
        self._old: set[int] = set()

    def knows(self, what: bytes) -> bool:
        """Whether it was asked for this lately. From now on it was."""
        number = xxh3_64_intdigest(what)
        if number in self._young or number in self._old:
            return True
        self._young.add(number)
        if len(self._young) >= self._count:
            self._old, self._young = self._young, set()
        return False
