"""Whether something was asked for before: so that nothing is kept for who asks once.

Source: the doorkeeper of Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission
Policy", 2017, here of whole hashes in two generations in place of a Bloom filter.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest


class Doorkeeper:
    """Remembers what it was asked for: at least the last `count` different things, and up to twice
    as many. Any thread may ask; of what is asked at the same time one may be taken for new.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._young: set[int] = set()
        self._old: set[int] = set()

    def knows(self, what: bytes) -> bool:
        """Whether it was asked for this lately. From now on it was."""
        number, young = xxh3_64_intdigest(what), self._young
        if number in young:
            return True
        known = number in self._old
        young.add(number)
        if len(young) >= self._count and self._young is young:
            self._old, self._young = young, set()
        return known
