"""What interception did in this process, in numbers.

Rules: a fork begins its own count at the parent's; the lock is made anew there, because a thread of
the parent may have held it.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass, replace
from threading import Lock

from cachesvc_client.engine import DIRECT

log = logging.getLogger("cachesvc_client.intercept")


@dataclass(frozen=True, slots=True)
class Intercepted:
    """Counters of one process: what boto3 and aiobotocore (s3fs, too) asked for. fsspec's `s3://`
    asks neither, and is not counted; its bytes are in `fsspec.filesystem("s3").client.sources()`.

    answered: reads answered from the cache. direct: reads that CacheClient answered from S3 itself,
    because no node could. A read counts by its first bytes; answered_bytes and direct_bytes are the
    bytes that came from either so far, whichever read they are of.
    passed: reads left to S3, by why: `first` (a HEAD whose answer is remembered), `refused` (S3 did
    not answer our HEAD well: no such object, or no permission), `unreachable`, `version` (another
    one than the nodes know), `cache` (it failed), `uncacheable`, `shadow`, `retry`, and what the
    request asks for: `endpoint`, `bucket`, `name`, `method`, `parameter`, `field`, `condition`,
    `range`, `checksum`, `signature`. faults: how often our own code failed. rescued: bodies of
    which the cache lost the rest, which then came from S3.
    Of reads done both ways: compared, compared_bytes; differing, how many had a wrong byte; stale,
    the cache had another version; unread, the cache had no bytes; the time that S3 and the cache
    took for the bytes compared, in seconds.
    """

    answered: int = 0
    answered_bytes: int = 0
    direct: int = 0
    direct_bytes: int = 0
    passed: tuple[tuple[str, int], ...] = ()
    faults: int = 0
    rescued: int = 0
    compared: int = 0
    compared_bytes: int = 0
    differing: int = 0
    stale: int = 0
    unread: int = 0
    s3_seconds: float = 0.0
    cache_seconds: float = 0.0


class Stats:
    """The counters, and what is logged once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._told: set[str] = set()
        self._passed: Counter[str] = Counter()
        self._counted = Intercepted()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._lock = Lock()

    def count(self, **numbers: float) -> None:
        """Add to counters by name."""
        with self._lock:
            now = self._counted
            self._counted = replace(
                now, **{name: getattr(now, name) + number for name, number in numbers.items()}
            )

    def answered(self, came: Counter[str]) -> None:
        """A read was answered with these first bytes, by where they came from."""
        self.count(**{"direct" if DIRECT in came else "answered": 1})
        self.came(came)

    def came(self, came: Counter[str]) -> None:
        """Bytes came, by where from."""
        self.count(answered_bytes=came.total() - came[DIRECT], direct_bytes=came[DIRECT])

    def passed(self, why: str) -> None:
        """A read was left to S3."""
        with self._lock:
            self._passed[why] += 1

    def fault(self, error: Exception) -> None:
        """Our own code failed; logged once for each kind of error."""
        self.count(faults=1)
        kind = type(error).__name__
        if kind not in self._told:
            self._told.add(kind)
            log.error(
                "interception failed, S3 is read instead (told once for each kind of error): %r",
                error,
                exc_info=error,
            )

    def snapshot(self) -> Intercepted:
        """The counters now."""
        with self._lock:
            return replace(self._counted, passed=tuple(sorted(self._passed.items())))


STATS = Stats()


def intercepted() -> Intercepted:
    """What interception did in this process so far; the class says what each counter is."""
    return STATS.snapshot()
