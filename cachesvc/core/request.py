"""What a reader may ask of a node, the same on every lane.

Values only; limits are checked where they are made.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachesvc.core.errors import RangeError
from cachesvc.core.types import ObjectName, ObjectVersion

LEAST_BYTES_PER_S = 100_000  # of an origin's body, beyond the limit on silence; slower is broken
MAX_RANGES = 1024  # in one request
MAX_REQUEST_BYTES = 256 << 20  # what the ranges of one request may add up to
SMALL_BODY_BYTES = 16 << 10  # of an answer kept and received whole; beyond, copying costs more


@dataclass(frozen=True, slots=True)
class StatRequest:
    """The current version of an object, checked at most `max_age_s` ago.

    None: as the node does by default.
    """

    name: ObjectName
    max_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Ranges `(start, end)` of one object, end None for the object's end.

    version: None for the current one, as StatRequest would give it. verify: the reader saw bytes
    that failed their checksum, so check every page before it is sent. bypass: one single origin GET
    of the one range, stored nowhere. descriptors: the reader can take files in place of bytes;
    landed_as_bytes: but would rather have the bytes of what is not stored yet than wait for that.

    Raises:
        RangeError: no range, too many, or a bypass of more than one.
    """

    name: ObjectName
    ranges: tuple[tuple[int, int | None], ...]
    version: ObjectVersion | None = None
    max_age_s: float | None = None
    verify: bool = False
    bypass: bool = False
    descriptors: bool = False
    landed_as_bytes: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.ranges) <= MAX_RANGES:
            raise RangeError(
                f"{self.name}: {len(self.ranges)} ranges in one request; give 1 to {MAX_RANGES}"
            )
        if self.bypass and len(self.ranges) != 1:
            raise RangeError(f"{self.name}: a bypass reads one range, not {len(self.ranges)}")
