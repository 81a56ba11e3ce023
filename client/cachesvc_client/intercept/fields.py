"""The header fields that S3 itself gave a client with an object: Content-Type, metadata, checksums.

Story: they come from HEADs that were signed with the client's own credentials, and so prove as well
that S3 lets those credentials read the object; where KMS has its key, a GET of one byte goes with
the HEAD. They are believed for a while (MAX_AGE_S), and only together with a version that is the
very one they were given with.

Rules: by access key, so that nobody is answered on somebody else's permission; bounded, the one
heard of longest ago leaves first. No lock: every step is one operation of a dict, and a forked
child can go on with what its parent knew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from cachesvc.core.types import ObjectName, ObjectVersion

MAX_AGE_S = 900.0
MAX_COUNT = 20_000
MAX_KEYS = 8  # access keys for each object
MAX_ENTRY_BYTES = 16 << 10  # S3 takes 8 KiB of headers
REQUEST_IDS = ("x-amz-request-id", "x-amz-id-2", "x-amzn-requestid")
# Said anew with every answer.
_ANEW = frozenset({"date", "content-length", "content-range", "transfer-encoding", *REQUEST_IDS})


@dataclass(frozen=True, slots=True)
class Fields:
    """What S3 said of an object. said: names in lower case; anew: which of those that every answer
    has anew it had; checksums: whether it was asked for them.
    """

    etag: str
    size_bytes: int
    modified_s: int
    said: tuple[tuple[str, str], ...]
    anew: frozenset[str]
    checksums: bool
    heard_at: float

    def describe(self, version: ObjectVersion) -> bool:
        """Whether they are those of this version."""
        return (
            version.cacheable
            and version.etag == self.etag
            and version.size_bytes == self.size_bytes
            and version.last_modified_ms // 1000 in (0, self.modified_s)
        )


def fields_of(headers: Mapping[str, str], checksums: bool, heard_at: float) -> Fields | None:
    """The fields of an answer to HEAD; None if they do not tell a version, or are too many."""
    said = {name.lower(): value for name, value in headers.items()}
    if sum(len(name) + len(value) for name, value in said.items()) > MAX_ENTRY_BYTES:
        return None
    try:
        etag, size_bytes = said["etag"], int(said["content-length"])
        modified_s = int(parsedate_to_datetime(said["last-modified"]).timestamp())
    except (KeyError, ValueError):
        return None
    kept = tuple((name, value) for name, value in said.items() if name not in _ANEW)
    anew = _ANEW & said.keys()
    return Fields(etag, size_bytes, modified_s, kept, anew, checksums, heard_at)


def needs_key(headers: Mapping[str, str]) -> bool:
    """Whether who may HEAD the object may still be refused its bytes, for want of KMS's key.
    headers: of an answer, names in lower case or in any.
    """
    return headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")


class FieldTable:
    """The fields heard of last. clock: monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float], max_count: int = MAX_COUNT) -> None:
        self.clock = clock
        self._max_count = max_count
        self._known: dict[ObjectName, dict[str, Fields]] = {}

    def get(self, who: str, name: ObjectName) -> Fields | None:
        """What is known of the object by HEADs that this access key signed."""
        known = self._known.get(name, {}).get(who)
        if known is None or self.clock() - known.heard_at > MAX_AGE_S:
            return None
        return known

    def put(self, who: str, name: ObjectName, fields: Fields) -> None:
        """Remember what a HEAD signed by this access key told."""
        others = {key: one for key, one in self._known.pop(name, {}).items() if key != who}
        self._known[name] = dict(list(others.items())[1 - MAX_KEYS :]) | {who: fields}
        while len(self._known) > self._max_count:
            with suppress(StopIteration, RuntimeError):  # another thread was faster
                self._known.pop(next(iter(self._known)), None)

    def drop(self, name: ObjectName) -> None:
        """The object has changed, or may have."""
        self._known.pop(name, None)

    def __len__(self) -> int:
        return len(self._known)
