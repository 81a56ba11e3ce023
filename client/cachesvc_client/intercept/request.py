"""From a signed request to what it wants: a plain read of an object of the cluster's origin, or
nothing of ours.

Rules: pure. What is not known to be harmless is S3's: other parameters than `x-id`, other x-amz-
fields than those of every request, conditions other than If-Match, several ranges, other
signatures than SigV4's header (or none), other endpoints, what is tried again after it failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote, urlsplit

from cachesvc.core.errors import InvalidKey
from cachesvc.core.types import ObjectName

_OURS = frozenset(
    {"x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-checksum-mode"}
)
_CONDITIONS = ("if-none-match", "if-modified-since", "if-unmodified-since", "if-range")
_QUERIES = ("", "x-id=GetObject", "x-id=HeadObject")
_SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/\s,]+)/")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
# One namespace of buckets whatever the region; other partitions have their own.
_AWS = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?:dualstack\.)?(?!us-gov-|us-iso)[a-z0-9-]+)?\.amazonaws\.com"
)
_AGAIN = re.compile(r"\battempt=(?!1\b)")  # in the amz-sdk-request of botocore
_OWN_SIGNATURES = ("--x-s3", "--ol-s3", ".mrap")  # directory buckets, object lambdas, multi-region


class Passed(Exception):
    """This read is left to S3; the text is why, in a word or two."""


@dataclass(frozen=True, slots=True)
class Span:
    """A Range header: bytes `[start, end)`, end None to the end; start None: the last `end`."""

    start: int | None
    end: int | None

    def within(self, size_bytes: int) -> tuple[int, int]:
        """`[start, end)` of an object of that size. Raises Passed if it holds no byte of it."""
        if self.start is None:
            start, end = max(0, size_bytes - (self.end or 0)), size_bytes
        else:
            start, end = self.start, size_bytes if self.end is None else min(self.end, size_bytes)
        if start >= end:
            raise Passed("range")
        return start, end


@dataclass(frozen=True, slots=True)
class Wanted:
    """A read of an object. who: the access key that signed it, "" for nobody; checksums: S3's
    checksum fields are asked for.
    """

    name: ObjectName
    who: str
    head: bool
    span: Span | None
    if_match: str | None
    checksums: bool


@dataclass(frozen=True, slots=True)
class Place:
    """The objects that are ours: those of the origin at `url` ("" for AWS), in the buckets named.

    buckets: `bucket` or `bucket/prefix`, with * and ? in the bucket's name; none: all.
    """

    url: str
    buckets: tuple[str, ...] = ()

    def locate(self, url: str) -> ObjectName:
        """The object that a URL without its query names. Raises Passed if it is none of ours."""
        parts = urlsplit(url)
        host = parts.netloc.lower()
        path = parts.path
        if self.url:
            home = urlsplit(self.url)
            if parts.scheme != home.scheme or not path.startswith(home.path):
                raise Passed("endpoint")
            path = path[len(home.path) :]
            if host == home.netloc:
                bucket, key = _split(path)
            elif host.endswith(f".{home.netloc}"):
                bucket, key = host.removesuffix(f".{home.netloc}"), path.removeprefix("/")
            else:
                raise Passed("endpoint")
        else:
            match = _AWS.fullmatch(host)
            if match is None:
                raise Passed("endpoint")
            bucket, key = _split(f"/{match['bucket']}{path}" if match["bucket"] else path)
        return self._named(bucket, key)

    def _named(self, bucket: str, key: str) -> ObjectName:
        if not {".", ".."}.isdisjoint(key.split("/")):  # which HTTP clients resolve, or do not
            raise Passed("name")
        try:
            name = ObjectName(unquote(bucket, errors="strict"), unquote(key, errors="strict"))
        except (InvalidKey, UnicodeDecodeError) as error:
            raise Passed("name") from error
        if name.bucket.endswith(_OWN_SIGNATURES) or not self.holds(name):
            raise Passed("bucket")
        return name

    def holds(self, name: ObjectName) -> bool:
        """Whether the object is in one of the buckets, and begins with its prefix."""
        if not self.buckets:
            return True
        for pattern in self.buckets:
            bucket, _, prefix = pattern.partition("/")
            if fnmatchcase(name.bucket, bucket) and name.key.startswith(prefix):
                return True
        return False


def buckets_of(text: str) -> tuple[str, ...]:
    """Buckets and prefixes, written with commas, each with or without `s3://`."""
    return tuple(one.strip().removeprefix("s3://") for one in text.split(",") if one.strip())


def wanted_of(request: Any, place: Place) -> Wanted:
    """What botocore is about to send. request: its AWSPreparedRequest.

    Raises Passed, naming what is unusual about it.
    """
    if request.method not in ("GET", "HEAD") or request.body:
        raise Passed("method")
    url, _, query = request.url.partition("?")
    if query not in _QUERIES:
        raise Passed("parameter")
    fields = {name.lower(): _text(value) for name, value in request.headers.items()}
    _check(fields)
    if _AGAIN.search(fields.get("amz-sdk-request", "")):
        raise Passed("retry")  # each with a HEAD that is tried again as well would be a storm
    head, span = request.method == "HEAD", _span(fields.get("range"))
    if head and span is not None:
        raise Passed("range")
    return Wanted(
        name=place.locate(url),
        who=_who(fields.get("authorization")),
        head=head,
        span=span,
        if_match=fields.get("if-match"),
        checksums=fields.get("x-amz-checksum-mode", "").upper() == "ENABLED",
    )


def _check(fields: Mapping[str, str]) -> None:
    for name in fields:
        if name.startswith("x-amz-") and name not in _OURS:
            raise Passed("field")
        if name in _CONDITIONS:
            raise Passed("condition")


def _who(authorization: str | None) -> str:
    if authorization is None:
        return ""
    match = _SIGNED.match(authorization)
    if match is None:
        raise Passed("signature")
    return match[1]


def _span(header: str | None) -> Span | None:
    if header is None:
        return None
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        raise Passed("range")
    last = int(match[2]) if match[2] else None
    if not match[1]:
        return Span(None, last)
    start = int(match[1])
    if last is not None and last < start:
        raise Passed("range")
    return Span(start, None if last is None else last + 1)


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.removeprefix("/").partition("/")
    return bucket, key


def _text(value: str | bytes) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value
