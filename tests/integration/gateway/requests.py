"""A few hundred requests, as data: what the differential test sends to an origin and a gateway.

Story: every object meets every range and condition, by GET and by HEAD; then come listings, names
that are odd, operations that are passed, and errors. `ETAG` and `MODIFIED` in a header stand for
those of the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.support import pattern

OBJECTS = {
    "empty": b"",
    "small": b"hello, world\n",
    "big": pattern(2 * (1 << 20) + 4321),
    "dir/a//b": b"two slashes",
    "dir/a/../b": b"dots",
    "dir/sp ace+plus%2F": b"encoded",
    "dir/gr\u00fc\u00dfe/\u65e5\u672c": b"unicode",
    "dir/trailing/": b"slash",
    "dir/&<amp>'\"": b"markup",
}
METADATA = {"small": {"color": "blue", "path": "a/b c"}}

_RANGES = [
    *(
        "0-0",
        "0-4",
        "5-",
        "-3",
        "-0",
        "-99999999",
        "0-99999999",
        "99999999-",
        "9-5",
        "",
        "-",
        "a-b",
    ),
    *("0-1,4-5", "65535-65536", "1048575-1048576", "12-", "13-"),
    *(
        "000000000000000000000000-1",
        f"{10**30}-",
        f"0-{10**30}",
        f"-{10**30}",
        "0-1-2",
        "0-0,",
        "--1",
    ),
]
_ODD_RANGES = ["items=0-1", "bytes= 0-1", "bytes=0 -1", "bytes=+0-1", "bytes=0x0-1", "BYTES=0-1"]
_PAST, _FUTURE = "Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
_CONDITIONS: list[dict[str, str]] = [
    {"If-Match": "ETAG"},
    {"If-Match": '"0123"'},
    {"If-Match": "*"},
    {"If-None-Match": "ETAG"},
    {"If-None-Match": '"0123"'},
    {"If-None-Match": "*"},
    {"If-Modified-Since": "MODIFIED"},
    {"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
    {"If-Unmodified-Since": "MODIFIED"},
    {"If-Unmodified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
    {"If-Match": '"0123"', "Range": "bytes=0-3"},
    {"If-None-Match": "ETAG", "Range": "bytes=0-3"},
    {"If-Match": "ETAG", "If-Unmodified-Since": _PAST},
    {"If-Match": '"0123"', "If-Unmodified-Since": _FUTURE},
    {"If-Match": "ETAG", "If-None-Match": "ETAG"},
    {"If-None-Match": "ETAG", "If-Modified-Since": _PAST},
    {"If-None-Match": '"0123"', "If-Modified-Since": "MODIFIED"},
    {"If-Modified-Since": _FUTURE},
    {"If-Unmodified-Since": _FUTURE},
    {"If-Modified-Since": _PAST, "If-Unmodified-Since": _PAST},
    {"If-Match": "W/ETAG"},
    {"If-None-Match": "W/ETAG"},
    {"If-Match": '"0123", ETAG'},
    {"If-None-Match": '"0123",W/ETAG'},
    *({"If-Modified-Since": date} for date in ("", "no date", "Monday, 01-Jan-01 00:00:00 GMT")),
    *({"If-Unmodified-Since": date} for date in ("978307200", "Mon Jan  1 00:00:00 2001")),
    *(
        {"If-Range": value, "Range": "bytes=0-3"}
        for value in ("ETAG", "MODIFIED", '"0123"', "W/ETAG", _PAST, _FUTURE, "no date")
    ),
]
_LISTINGS = [
    *("", "prefix=dir/", "delimiter=/", "prefix=dir/&delimiter=/", "max-keys=2", "max-keys=0"),
    *("encoding-type=url", "prefix=dir/&encoding-type=url&delimiter=/", "prefix=none"),
    *("prefix=dir%2Fgr%C3%BC", "prefix=dir/sp+ace", "delimiter=a&max-keys=1000"),
    *("max-keys=1", "max-keys=1001", "max-keys=x", "max-keys=-1", "max-keys=", "delimiter=//"),
    *("delimiter=", "encoding-type=xml", "prefix=dir/sp%20ace%2Bplus&encoding-type=url"),
    *("prefix=%2525", "prefix=%", "prefix=/", "prefix=", "fetch-owner=true", "start-after=small"),
    *("continuation-token=garbage", "continuation-token=", "delimiter=%C3%BC", "bogus=1"),
    *("prefix=dir/&delimiter=/&max-keys=1", "encoding-type=url&delimiter=%2B", "x-id=List"),
]


@dataclass(frozen=True, slots=True)
class Asking:
    """One request. key: of the object whose ETag and time its headers name."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    key: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.target} {self.headers or ''}".strip()


def askings(bucket: str) -> Iterator[Asking]:
    """All of them. None changes anything."""
    for key in OBJECTS:
        target = f"/{bucket}/{quote(key)}"
        for method in ("GET", "HEAD"):
            yield Asking(method, target, key=key)
        if key in ("empty", "small", "big"):
            yield from _of_object(target, key)
    yield from _listings(bucket)
    yield from _others(bucket)


def _of_object(target: str, key: str) -> Iterator[Asking]:
    for method in ("GET", "HEAD"):
        for span in _RANGES:
            yield Asking(method, target, {"Range": f"bytes={span}"}, key)
        for value in _ODD_RANGES:
            yield Asking(method, target, {"Range": value}, key)
        for conditions in _CONDITIONS:
            yield Asking(method, target, conditions, key)
        yield Asking(method, target, {"x-amz-checksum-mode": "ENABLED"}, key)
        for span in ("0-1", "0-"):
            mode = {"x-amz-checksum-mode": "ENABLED"}
            yield Asking(method, target, {**mode, "Range": f"bytes={span}"}, key)
    yield Asking("GET", f"{target}?x-id=GetObject", key=key)


def _listings(bucket: str) -> Iterator[Asking]:
    for query in _LISTINGS:
        yield Asking("GET", f"/{bucket}?list-type=2&{query}")
        yield Asking("GET", f"/{bucket}/?list-type=2&{query}")
        yield Asking("GET", f"/{bucket}?{query}")
    yield Asking("GET", f"/{bucket}?list-type=2&start-after=dir/a")
    yield Asking("GET", f"/{bucket}?marker=dir/a")
    yield Asking("GET", "/nobucket?list-type=2")


def _others(bucket: str) -> Iterator[Asking]:
    for target in ("/", f"/{bucket}?location", f"/{bucket}?versioning", f"/{bucket}?uploads"):
        yield Asking("GET", target)
    yield Asking("HEAD", f"/{bucket}")
    yield Asking("HEAD", f"/{bucket}/")
    yield Asking("HEAD", "/nobucket")
    for method in ("GET", "HEAD"):
        for key in ("none", "dir", "dir/", "small/", "dir/a/b", "Small", "%7E", "dir//a//b"):
            yield Asking(method, f"/{bucket}/{key}")
        yield Asking(method, "/nobucket/key")
        for target in (f"/{bucket}%2Fsmall", f"/{bucket}/dir/a%2F%2Fb"):
            yield Asking(method, target)
        yield Asking(method, f"/{bucket}/big?partNumber=1", key="big")
        yield Asking(method, f"/{bucket}/small?response-content-type=text/x", key="small")
    yield Asking("GET", f"/{bucket}/small?tagging")
    yield Asking("GET", f"/{bucket}/{'k' * 1025}")
