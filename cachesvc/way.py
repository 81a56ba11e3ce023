"""The way in which stored pages leave: as they stand, each checked here, or as descriptors."""

from __future__ import annotations

from enum import Enum

from cachesvc.core.blocks import Slice
from cachesvc.core.request import ReadRequest

CHECKED_BYTES = 16 << 10  # up to here an answer goes from memory: one send, and checked here


class Way(Enum):
    """What a request asks for."""

    PLAIN = 1
    CHECKED = 2
    PASSED = 3  # all that the store takes: waited for
    MIXED = 4  # what has landed before it is stored comes as bytes

    @property
    def passes(self) -> bool:
        return self in (Way.PASSED, Way.MIXED)


def way_of(request: ReadRequest) -> Way:
    if request.verify:
        return Way.CHECKED
    if not request.descriptors:
        return Way.PLAIN
    return Way.MIXED if request.landed_as_bytes else Way.PASSED


def checks_all(part: Slice, way: Way) -> bool:
    """Whether every page of the slice is checked here; else only those that are sent in part."""
    return way is Way.CHECKED or part.length_bytes <= CHECKED_BYTES
