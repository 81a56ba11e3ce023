"""The plain model: what every object was, when, and what a reader may therefore be told.

Rules
- A completed read is bytewise one version's ranges, and that version was current at some moment
  from `revalidate_s` before the read began until its end. A pinned read is of its version.
- An error is of a kind that the history justifies; anything else is a violation.

Story: every put and delete opens an era of its object. A read or an error is held against the eras
that overlap its time. Nothing here knows how a cache works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cachesvc.core.errors import (
    CacheError,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    RangeError,
)
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.versions import MAX_NOT_FOUND_AGE_S

Range = tuple[int, int | None]

NEVER_S = float("inf")
_EDGE_S = 1e-6  # moments closer than this are the same moment


@dataclass(slots=True)
class Era:
    """What an object was from `since` to `until`; version None: absent."""

    version: ObjectVersion | None
    data: bytes
    since: float
    until: float = NEVER_S


@dataclass(slots=True)
class Call:
    """One call of a client, and when it ran. max_age_s: of a stat."""

    name: ObjectName
    ranges: Sequence[Range]
    pinned: ObjectVersion | None
    since: float
    until: float = NEVER_S
    max_age_s: float = NEVER_S

    def __str__(self) -> str:
        pin = f" pinned to {self.pinned.etag}" if self.pinned else ""
        return f"{self.name} {list(self.ranges)}{pin} [{self.since:.4f}, {self.until:.4f}]"


@dataclass(slots=True)
class Model:
    """The history of all objects, and of the faults that were dealt to clients by the origin."""

    revalidate_s: float
    eras: dict[ObjectName, list[Era]] = field(default_factory=dict)
    refusals: list[tuple[float, ObjectName]] = field(default_factory=list)

    def became(
        self, name: ObjectName, version: ObjectVersion | None, data: bytes, now: float
    ) -> None:
        """The object was put, or deleted (version None)."""
        eras = self.eras.setdefault(name, [])
        if eras:
            eras[-1].until = now
        eras.append(Era(version, data, now))

    def current(self, name: ObjectName) -> Era:
        return self.eras[name][-1]

    def during(self, name: ObjectName, since: float, until: float) -> list[Era]:
        """The eras that had a moment within the time."""
        return [
            era
            for era in self.eras[name]
            if era.since <= until + _EDGE_S and era.until >= since - _EDGE_S
        ]

    def era_of(self, version: ObjectVersion) -> Era | None:
        """The era of exactly this version."""
        return next((era for era in self.eras[version.name] if era.version == version), None)

    # -- what was answered

    def wrong_version(self, call: Call, version: ObjectVersion) -> str | None:
        """Why this version is no answer to the call; None if it is."""
        era = self.era_of(version)
        if era is None:
            return f"{version} never was"
        if call.pinned is not None:
            return None if version == call.pinned else f"{version} is not the pinned one"
        since = call.since - min(self.revalidate_s, call.max_age_s)
        if era not in self.during(call.name, since, call.until):
            return (
                f"stale: {version.etag} was current in [{era.since:.4f}, {era.until:.4f}],"
                f" revalidate is {self.revalidate_s}"
            )
        return None

    def wrong_bytes(
        self, call: Call, version: ObjectVersion, results: Sequence[bytes]
    ) -> str | None:
        """Why these bytes are no answer to the call; None if they are."""
        era = self.era_of(version)
        assert era is not None
        if len(results) != len(call.ranges):
            return f"{len(results)} results"
        for (start, end), result in zip(call.ranges, results, strict=True):
            wanted = era.data[start:end]
            if start < 0 or (end is not None and end < start) or start > version.size_bytes:
                return f"[{start}, {end}) of {version.size_bytes} bytes was answered"
            if result != wanted:
                return self._difference(call, era, (start, end), result)
        return None

    def _difference(self, call: Call, era: Era, asked: Range, result: bytes) -> str:
        wanted = era.data[asked[0] : asked[1]]
        if len(result) != len(wanted):
            return f"{asked}: {len(result)} bytes instead of {len(wanted)}"
        at = next(i for i, (one, two) in enumerate(zip(result, wanted, strict=True)) if one != two)
        known = [
            other.version.etag
            for other in self.eras[call.name]
            if other.version
            and other.data[asked[0] + at : asked[0] + at + 8] == result[at : at + 8]
        ]
        return f"{asked}: wrong from byte {asked[0] + at} (that is of {known or 'no version'})"

    # -- what was refused

    def wrong_error(self, call: Call, error: BaseException) -> str | None:
        """Why the call may not fail like this; None if it may."""
        if not isinstance(error, CacheError):
            return f"no CacheError: {error!r}"
        judge = {
            ObjectNotFound: self._may_be_absent,
            RangeError: self._may_be_out_of_range,
            ObjectChanged: self._may_have_changed,
            OriginError: self._may_be_refused,
        }.get(type(error))
        if judge is None or not judge(call):
            return f"{type(error).__name__} is not justified: {error}"
        return None

    def _may_be_absent(self, call: Call) -> bool:
        age_s = min(self.revalidate_s, call.max_age_s, MAX_NOT_FOUND_AGE_S)
        eras = self.during(call.name, call.since - age_s, call.until)
        return any(era.version is None for era in eras)

    def _may_be_out_of_range(self, call: Call) -> bool:
        if any(start < 0 or (end is not None and end < start) for start, end in call.ranges):
            return True
        furthest = max((start for start, _ in call.ranges), default=0)
        if call.pinned is not None and furthest > call.pinned.size_bytes:
            return True
        eras = self.during(call.name, call.since - self.revalidate_s, call.until)
        return any(era.version and furthest > era.version.size_bytes for era in eras)

    def _may_have_changed(self, call: Call) -> bool:
        if call.pinned is None:
            return len(self.during(call.name, call.since, call.until)) > 1
        eras = self.during(call.name, call.since, call.until)
        return any(era.version != call.pinned for era in eras)

    def _may_be_refused(self, call: Call) -> bool:
        return any(
            call.since - _EDGE_S <= when <= call.until + _EDGE_S and name == call.name
            for when, name in self.refusals
        )
