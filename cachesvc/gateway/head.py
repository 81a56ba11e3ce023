"""What to answer for what was found: status, header fields, and which bytes behind them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache

from cachesvc.core import object_checksums
from cachesvc.core.types import ByteRange, ObjectVersion
from cachesvc.gateway import conditions
from cachesvc.gateway.fields import Fields
from cachesvc.gateway.lookup import Found
from cachesvc.gateway.ranges import asked_range, parse_range


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. body: what follows it; None: nothing may."""

    status: int
    fields: dict[str, str]
    version: ObjectVersion
    body: ByteRange | None


def head_of(headers: Mapping[str, str], found: Found, *, checksums: bool = False) -> Head:
    """What to answer for what was found. checksums: they were asked for.

    Raises:
        S3Error: 412 or 416.
    """
    version = found.version
    modified_s = version.last_modified_ms // 1000
    fields = {"ETag": version.etag, "Last-Modified": _http_date(modified_s)}
    if not conditions.check(headers, version.etag, modified_s):
        kept = ("cache-control", "expires", "content-location", "vary")
        fields |= {name: value for name, value in found.fields if name in kept}
        return Head(304, fields, version, None)
    counts = conditions.range_holds(headers, version.etag, modified_s)
    wanted = parse_range(headers.get("Range") if counts else None, version.size_bytes)
    told = checksums and wanted is None
    told = told and not object_checksums.unclear(version.etag, found.fields)
    fields |= dict(found.fields) if told else _without_checksums(found.fields)
    fields["Accept-Ranges"] = "bytes"
    status, body = 200, wanted or ByteRange(0, version.size_bytes)
    if wanted is not None:
        status = 206
        fields["Content-Range"] = f"bytes {wanted.start}-{wanted.end - 1}/{version.size_bytes}"
    return Head(status, fields, version, body)


@lru_cache(1024)
def _http_date(unix_s: int) -> str:
    return formatdate(unix_s, usegmt=True)


@lru_cache(1024)
def _without_checksums(fields: Fields) -> dict[str, str]:
    """Shared: to be copied from."""
    return object_checksums.without(fields)


def needs_checksums(headers: Mapping[str, str], parameters: Mapping[str, str]) -> bool:
    """Whether they may have to be told: they are asked for, by the header, or, as presigned URLs
    do, by the parameter of that name, and perhaps of the whole object.
    """
    mode = "x-amz-checksum-mode"
    if "ENABLED" not in (headers.get(mode), parameters.get(mode)):
        return False
    return "If-Range" in headers or asked_range(headers.get("Range")) is None
