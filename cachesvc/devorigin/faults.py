"""How the development origin misbehaves on purpose: faults, latency, bandwidth.

Rules
- Values are frozen and checked when made; an unknown kind is an error, not ignored.
- Everything random comes from a seed: the same requests in the same order meet the same faults.
- No I/O but the sleep of `Pace`.

Story: for each request `FaultPlan.draw` picks the faults that apply (several may);
`answer.compose` turns them into a lying answer; the service carries out the ones that act
on the connection (cut, reset, stall).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

ANY_REQUEST_KINDS = frozenset({"503", "500", "slow_first_byte"})
OBJECT_KINDS = frozenset({"etag_change", "no_etag", "weak_etag"})
BODY_KINDS = frozenset({"cut", "reset", "stall", "short_length", "long_length"})
RANGE_KINDS = frozenset({"wrong_range", "full_200"})
KINDS = ANY_REQUEST_KINDS | OBJECT_KINDS | BODY_KINDS | RANGE_KINDS
_P99_OF_NORMAL = 2.3263478740408408
_MAX_CATCH_UP_S = 0.05


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave, and for which requests.

    kind: one of KINDS. Of these, 503 (SlowDown), 500 and slow_first_byte touch any request;
    etag_change (another ETag and other bytes, whatever If-Match says), no_etag and weak_etag touch
    GET and HEAD of objects; cut (FIN), reset (RST), stall, short_length and long_length the body of
    a GET; wrong_range and full_200 a GET with a Range. method: that of the request, or `*`.
    key_glob: of the key; a listing has the empty key. probability: 0 to 1. count: how many times at
    most; None is always. after_bytes: for cut, reset and stall the bytes of body sent before; for
    short_length the length that is sent; None is half the body. For long_length the bytes too many;
    None is one. delay_ms: of slow_first_byte and stall.

    Raises:
        ValueError: unknown kind, or a number out of its bounds.
    """

    kind: str
    method: str = "GET"
    key_glob: str = "*"
    probability: float = 1.0
    count: int | None = None
    after_bytes: int | None = None
    delay_ms: float = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault kind {self.kind!r} is unknown: use one of {sorted(KINDS)}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"fault {self.kind}: probability {self.probability} is not in [0, 1]")
        if (self.count or 0) < 0 or (self.after_bytes or 0) < 0 or self.delay_ms < 0:
            raise ValueError(f"fault {self.kind}: count, after_bytes or delay_ms is negative")

    def fits(self, method: str, key: str, ranged: bool) -> bool:
        """Whether the request is one that this fault can touch (chance and count aside)."""
        if self.method not in ("*", method) or not fnmatchcase(key, self.key_glob):
            return False
        if self.kind in ANY_REQUEST_KINDS:
            return True
        if not key or method not in ("GET", "HEAD"):
            return False
        if self.kind in OBJECT_KINDS:
            return True
        return method == "GET" and (ranged or self.kind in BODY_KINDS)


class FaultPlan:
    """The faults in force, with their counts and their dice. Drawn from by one thread only."""

    def __init__(self, faults: Sequence[Fault] = (), seed: int = 0) -> None:
        self.faults = tuple(faults)
        self._left = [fault.count for fault in self.faults]
        self._random = random.Random(seed)

    def draw(self, method: str, key: str, *, ranged: bool) -> tuple[Fault, ...]:
        """The faults that this request meets, in the order of the plan; counts go down."""
        drawn = []
        for index, fault in enumerate(self.faults):
            left = self._left[index]
            if left == 0 or not fault.fits(method, key, ranged):
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            if left is not None:
                self._left[index] = left - 1
            drawn.append(fault)
        return tuple(drawn)


@dataclass(frozen=True, slots=True)
class Shape:
    """How slow the origin is when it works.

    first_byte_ms: from request to first byte of GET and HEAD; the median, if first_byte_p99_ms is
    not 0. per_connection_mb_s: bytes of a GET body, in 10^6 bytes a second and connection; 0 is as
    fast as it goes. first_byte_p99_ms: 0 makes the latency fixed, else it is lognormal with this
    99th percentile.

    Raises:
        ValueError: a negative number, or a p99 below the median, or one without a median.
    """

    first_byte_ms: float = 0
    per_connection_mb_s: float = 0
    first_byte_p99_ms: float = 0

    def __post_init__(self) -> None:
        if min(self.first_byte_ms, self.per_connection_mb_s, self.first_byte_p99_ms) < 0:
            raise ValueError("a shape's numbers can't be negative")
        if self.first_byte_p99_ms and not 0 < self.first_byte_ms <= self.first_byte_p99_ms:
            raise ValueError("first_byte_p99_ms needs a first_byte_ms above 0 and not above it")

    def first_byte_s(self, dice: random.Random) -> float:
        """Seconds that this request waits for its first byte."""
        if not self.first_byte_p99_ms:
            return self.first_byte_ms / 1000
        sigma = math.log(self.first_byte_p99_ms / self.first_byte_ms) / _P99_OF_NORMAL
        return self.first_byte_ms / 1000 * math.exp(sigma * dice.gauss(0, 1))


class Pace:
    """Holds one answer to a bandwidth: bytes leave when the wire would have carried them."""

    def __init__(self, mb_s: float) -> None:
        self._bytes_s = mb_s * 1e6
        self._due_s = time.monotonic()

    async def wait(self, length_bytes: int) -> None:
        """Return when these bytes too may have arrived. A late caller catches up 50 ms at most."""
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - _MAX_CATCH_UP_S) + length_bytes / self._bytes_s
        if self._due_s > now_s:
            await asyncio.sleep(self._due_s - now_s)
