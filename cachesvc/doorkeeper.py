"""Whether something was asked for before: so that nothing is kept for who asks once.

Source: the doorkeeper of Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission
Policy", 2017, here a table of fingerprints in place of a Bloom filter: a new one takes the place
of an old one, so that nothing has to be cleared, and it costs one look at one place.
"""

from __future__ import annotations

from array import array

from xxhash import xxh3_64_intdigest


class Doorkeeper:
    """Remembers what it was asked for, in a table of `count` places, a power of two; of what was
    asked after n others exp(-n / count) is still known. Any thread may ask; of what is asked at the
    same time one may be taken for new. One in 4 billion strangers is taken for known.
    """

    def __init__(self, count: int) -> None:
        if count & (count - 1) or not count:
            raise ValueError(f"a table of {count} places; the number is to be a power of two")
        self._last = count - 1
        self._seen = array("I", bytes(4 * count))

    def knows(self, what: bytes) -> bool:
        """Whether it was asked for this lately. From now on it was."""
        number = xxh3_64_intdigest(what)
        place, fingerprint = number & self._last, number >> 32
        if self._seen[place] == fingerprint:
            return True
        self._seen[place] = fingerprint
        return False
