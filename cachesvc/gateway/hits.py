"""Hits: plain requests that need nobody's answer, decided at once on the event loop.

Story: most requests of a warm cache are plain GETs of what is stored, under a version that is known
and young enough, with header fields that were heard. For these the head and the bytes are found
here in one go, by the same functions that answer all others. Whatever needs more (a version check,
a disk, the origin, an error document) is None, and takes the way of all requests from its
beginning.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache

import structlog

from cachesvc.answer import Answer
from cachesvc.core.errors import InvalidKey
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.gateway.auth import Guard
from cachesvc.gateway.errors import S3Error
from cachesvc.gateway.head import Head, head_of, needs_checksums
from cachesvc.gateway.lookup import Lookup
from cachesvc.gateway.operation import Way, operation_of
from cachesvc.gateway.plain import Plain
from cachesvc.gateway.sending import range_of
from cachesvc.gateway.target import Target, parse_target
from cachesvc.reader import Reader

MAX_BYTES = 64 << 20  # of one answer: all its blocks are looked up, and pinned, at once
log = structlog.get_logger(__name__)
_MAX_KEPT_TARGET_CHARS = 1024
_FORBIDDEN = re.compile("[\\x00-\\x08\\x0a-\\x1f\\x7f]")
_REASONS = {200: "OK", 206: "Partial Content"}


@dataclass(slots=True)
class Hit:
    """An answer that is there. head: its bytes, a small body among them. body: what follows."""

    operation: str
    status: int
    head: bytes
    version: ObjectVersion
    body: Answer | None = None


class Hits:
    """Of one gateway, on the event loop. stamp: fields that every answer carries."""

    def __init__(
        self,
        reader: Reader,
        lookup: Lookup,
        guard: Guard | None,
        stamp: Mapping[str, str],
        domain: str = "",
    ) -> None:
        self._reader = reader
        self._lookup = lookup
        self._guard = guard
        self._stamp = dict(stamp)
        self._domain = domain
        self._date_s, self._date = 0, ""

    def find(self, request: Plain) -> Hit | None:
        """The answer, for the taker to close its body; None: ask the common way."""
        try:
            return self._find(request)
        except (S3Error, InvalidKey, UnicodeEncodeError):
            return None  # which is made again, and told, on the common way
        except Exception:
            log.exception("a hit could not be looked up", target=request.target)
            return None

    def _find(self, request: Plain) -> Hit | None:
        raw, host = request.target, request.headers["Host"]
        short = len(raw) + len(host) <= _MAX_KEPT_TARGET_CHARS
        target = (_target if short else parse_target)(raw, host, self._domain)
        wanted = operation_of(request.method, target, request.headers)
        if wanted.way is not Way.CACHED:
            return None
        parameters = target.parameters if target.query else {}
        checksums = needs_checksums(request.headers, parameters)
        name = ObjectName(target.bucket, target.key)
        found = self._lookup.known(name, checksums=checksums)
        if found is None or not found.version.cacheable:
            return None
        if self._guard is not None:
            self._guard.check(request.method, target, request.headers)
        head = head_of(request.headers, found, checksums=checksums)
        wanted_bytes = head.body
        if wanted_bytes is None:
            return None
        hit = Hit(wanted.name, head.status, self._encoded(head, wanted_bytes), found.version)
        if request.method == "GET" and wanted_bytes.length_bytes:
            return self._with_bytes(hit, wanted_bytes)
        return hit

    def _with_bytes(self, hit: Hit, wanted: ByteRange) -> Hit | None:
        if wanted.length_bytes > MAX_BYTES:
            return None
        small = self._reader.small.body(hit.version, wanted.start, wanted.end)
        if small is not None:
            hit.head += small
            return hit
        hit.body = self._reader.hit(range_of(hit.version, wanted), wait=False)
        return None if hit.body is None else hit

    def _encoded(self, head: Head, body: ByteRange) -> bytes:
        """The head as it is sent."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date_s, self._date = now_s, formatdate(now_s, usegmt=True)
        own = self._stamp | {
            "x-amz-request-id": secrets.token_hex(8).upper(),
            "X-Cache": "HIT",
            "Content-Length": str(body.length_bytes),
            "Date": self._date,
        }
        fields = head.fields | own
        if "content-type" not in fields and "Content-Type" not in fields:
            fields["Content-Type"] = "application/octet-stream"
        lines = [f"{name}: {value}" for name, value in fields.items()]
        if any(map(_FORBIDDEN.search, lines)):
            raise S3Error(500, "InternalError", "a header field of the origin holds a control")
        text = "\r\n".join([f"HTTP/1.1 {head.status} {_REASONS[head.status]}", *lines, "\r\n"])
        return text.encode()


@lru_cache(4096)
def _target(raw: str, host: str, domain: str) -> Target:
    return parse_target(raw, host, domain)
