"""The header fields that the origin gave with a version: Content-Type, user metadata, checksums.

Story: every HEAD that the origin answers is heard here (`hear`), and every probe, and a GET or HEAD
of the gateway repeats the fields. A probe asks for no checksums, so who needs them has a HEAD sent.
An entry counts only for the version that it was heard of, and only if it is as young as the check
of that version: metadata may change while bytes and ETag stay.

Rules: bounded in entries and in bytes, the one heard longest ago leaves first; of fields beyond
MAX_ENTRY_BYTES none are kept, and the log says so. Belongs to the event loop.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from cachesvc.core import object_checksums
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.versions import Checked

MAX_ENTRY_COUNT = 200_000
MAX_TABLE_BYTES = 64 << 20
MAX_ENTRY_BYTES = 16 << 10  # S3 takes 8 KiB of headers
_ENTRY_OVERHEAD_BYTES = 400
_FIELD_OVERHEAD_BYTES = 110

# What is said anew with every answer, or by the gateway itself.
_OWN = frozenset(
    [
        "accept-ranges",
        "connection",
        "content-length",
        "content-range",
        "date",
        "etag",
        "keep-alive",
        "last-modified",
        "server",
        "trailer",
        "transfer-encoding",
        "via",
        "x-amz-id-2",
        "x-amz-request-id",
    ]
)

log = structlog.get_logger(__name__)
Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Heard:
    version: ObjectVersion
    fields: Fields
    at: float
    checksums: bool
    size_bytes: int


class FieldTable:
    """The fields of the versions heard of last."""

    def __init__(
        self,
        max_entry_count: int = MAX_ENTRY_COUNT,
        max_table_bytes: int = MAX_TABLE_BYTES,
    ) -> None:
        self._max_entry_count = max_entry_count
        self._max_table_bytes = max_table_bytes
        self._heard: OrderedDict[ObjectName, _Heard] = OrderedDict()
        self.table_bytes = 0

    def hear(
        self,
        version: ObjectVersion,
        headers: Mapping[str, str],
        asked_at: float,
        checksums: bool = True,
    ) -> None:
        """A HEAD or GET was answered: this version, with these headers. asked_at: when it was sent,
        on the clock of the version checks. checksums: they were asked for; otherwise those that are
        there are not the whole object's.
        """
        known = self._heard.get(version.name)
        if known is not None and (known.at, known.checksums) > (asked_at, checksums):
            return
        told = {name.lower(): value for name, value in headers.items()}
        if not checksums:
            told = object_checksums.without(told.items())
        fields = tuple(
            (sys.intern(name), value) for name, value in told.items() if name not in _OWN
        )
        size_bytes = _ENTRY_OVERHEAD_BYTES + sum(
            _FIELD_OVERHEAD_BYTES + len(name) + len(value) for name, value in fields
        )
        self._drop(version.name)
        if size_bytes > MAX_ENTRY_BYTES:
            log.warning("header fields left out", object=str(version.name), size_bytes=size_bytes)
            fields, size_bytes = (), _ENTRY_OVERHEAD_BYTES
        self._heard[version.name] = _Heard(version, fields, asked_at, checksums, size_bytes)
        self.table_bytes += size_bytes
        while len(self._heard) > self._max_entry_count or self.table_bytes > self._max_table_bytes:
            self._drop(next(iter(self._heard)))

    def of(self, checked: Checked, *, checksums: bool = False) -> Fields | None:
        """The fields of a checked version, or None if they were not heard since the check, or with
        no word of the checksums that are needed.
        """
        assert checked.version is not None, "a version that exists"
        heard = self._heard.get(checked.version.name)
        if heard is None or heard.at < checked.checked_at or checksums > heard.checksums:
            return None
        return heard.fields if heard.version.same_bytes(checked.version) else None

    def __len__(self) -> int:
        return len(self._heard)

    def _drop(self, name: ObjectName) -> None:
        heard = self._heard.pop(name, None)
        if heard is not None:
            self.table_bytes -= heard.size_bytes
