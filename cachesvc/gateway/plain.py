"""Plain requests: GET and HEAD as most clients write them, told by their bytes alone.

Rules: one pattern decides. What it does not match (other methods, several requests at once, a part
of one, a body, a field twice, bytes beyond ASCII, HTTP/1.0, a connection that shall end or change)
is no mistake: it is aiohttp's to parse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multidict import CIMultiDict

_REQUEST = re.compile(
    rb"(GET|HEAD) (/[A-Za-z0-9/%._~!$&'()*+,;=:@?-]*) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[\t -~]*\r\n)+)\r\n"
)
MAX_BYTES = 8 << 10
MAX_FIELD_COUNT = 100  # aiohttp refuses more than 128
# Fields that say more of a request than what it wants, and one that aiohttp refuses; Connection
# says more, mostly.
_OTHERS = frozenset(
    [
        "content-length",
        "expect",
        "proxy-connection",
        "sec-websocket-key1",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)


@dataclass(frozen=True, slots=True)
class Plain:
    """A request without a body. headers: looked up without regard to case, each there once."""

    method: str
    target: str
    headers: CIMultiDict[str]


def plain(data: bytes) -> Plain | None:
    """The request that the bytes are, all of them, or None: have them parsed."""
    match = _REQUEST.fullmatch(data) if len(data) <= MAX_BYTES else None
    if match is None:
        return None
    method, target, block = match.groups()
    lines = block.decode("ascii").split("\r\n")
    lines.pop()
    if len(lines) > MAX_FIELD_COUNT:
        return None
    pairs = [line.split(":", 1) for line in lines]
    headers = CIMultiDict((name, value.strip(" \t")) for name, value in pairs)
    names = {name.lower() for name, _ in pairs}
    if len(names) < len(pairs) or "host" not in names or not _OTHERS.isdisjoint(names):
        return None
    if headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return Plain(method.decode("ascii"), target.decode("ascii"), headers)
