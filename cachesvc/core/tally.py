"""A tally of 64-bit numbers: how often each is in it, at about 9 bytes apiece.

Rules: no object per number, and no step that walks them all, so that a million numbers cost the
garbage collector nothing and nobody waits for a table to be made anew. Pure: the caller holds the
lock.

Story: the numbers are hashes, so that their low bits spread them evenly over SHARDS; a shard is a
sorted array, in which a number is found by halving and makes room for itself by one short move
(2 KB at a million numbers).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort

SHARDS = 4096


class Tally:
    """Numbers below 2**64, each as often as it was added."""

    __slots__ = ("_shards",)

    def __init__(self) -> None:
        self._shards: dict[int, array[int]] = {}

    def __contains__(self, number: int) -> bool:
        shard = self._shards.get(number % SHARDS)
        if shard is None:
            return False
        place = bisect_left(shard, number)
        return place < len(shard) and shard[place] == number

    def add(self, number: int) -> None:
        """Count the number once more."""
        shard = self._shards.get(number % SHARDS)
        if shard is None:
            shard = self._shards[number % SHARDS] = array("Q")
        insort(shard, number)

    def remove(self, number: int) -> None:
        """Count the number, which is here, once less."""
        shard = self._shards[number % SHARDS]
        place = bisect_left(shard, number)
        assert shard[place] == number, f"{number} is not in the tally"
        del shard[place]
