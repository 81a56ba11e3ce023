"""What the development origin understands of HTTP and S3: targets, ranges, conditions, errors.

Rules
- A path is decoded exactly once, from the bytes as sent: `//`, `..`, `%2F` and `+` are the client's
  own.
- Ranges are half open inside; the inclusive form stands in headers only.
- What S3 would answer with an error is an `S3Error`, rendered as S3's XML in one place.

Story: `parse_target` takes the request line apart; `parse_range` and `check_conditions` decide what
a GET answers; `aws_chunks` unwraps the bodies that today's SDKs send.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, unquote_to_bytes
from xml.sax.saxutils import escape

from aiohttp import StreamReader

from cachesvc.devorigin.keys import MAX_KEY_BYTES

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII | re.IGNORECASE)
_CHUNK_HEADER = re.compile(rb"([0-9a-fA-F]{1,16})(;[^\r\n]*)?\r\n")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_MAX_READ_BYTES = 1 << 20


class S3Error(Exception):
    """An answer that is an error document. code: S3's name; headers: beside the body."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def xml(self, resource: str, request_id: str) -> bytes:
        """The body, in UTF-8."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{self.code}</Code><Message>{xml_text(self.message)}</Message>"
            f"<Resource>{xml_text(resource)}</Resource>"
            f"<RequestId>{request_id}</RequestId></Error>"
        ).encode(errors="replace")


@dataclass(frozen=True, slots=True)
class Target:
    """A decoded request target. bucket and key: empty where the path names none."""

    bucket: str
    key: str
    query: dict[str, str]


def parse_target(raw: str) -> Target:
    """The request target as it stood in the request line (bytes beyond ASCII as surrogate escapes).

    Raises:
        S3Error: 400 for a name with NUL or invalid UTF-8, a key over 1,024 bytes, or a malformed
        query.
    """
    if not raw.startswith("/"):
        raw = "/" + raw.partition("://")[2].partition("/")[2]
    path, _, query = raw.partition("?")
    bucket, _, key = path[1:].partition("/")
    target = Target(_decode(bucket), _decode(key), _parse_query(query))
    if len(target.key.encode()) > MAX_KEY_BYTES:
        raise S3Error(400, "KeyTooLongError", f"Your key is longer than {MAX_KEY_BYTES} bytes")
    return target


def _decode(text: str) -> str:
    try:
        decoded = unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeError as error:
        raise S3Error(400, "InvalidURI", "Couldn't parse the specified URI: not UTF-8") from error
    if "\0" in decoded:
        raise S3Error(400, "InvalidURI", "Couldn't parse the specified URI: a NUL character")
    return decoded


def _parse_query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)
        for name, value in pairs:
            (name + value).encode()
    except ValueError as error:
        raise S3Error(400, "InvalidURI", f"Couldn't parse the query: {error}") from error
    return dict(pairs)


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """`[start, end)` of a Range header against an object of that size; None: nothing to honour.

    Syntactically invalid and multiple ranges are ignored, as S3 does.

    Raises:
        S3Error: 416 where the range holds no byte of the object.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.group().endswith("=-"):
        return None
    first, last = (_bounded(text) for text in match.groups())
    if first is None:
        start, end = max(0, size_bytes - (last or 0)), size_bytes
    else:
        if last is not None and last < first:
            return None
        start, end = first, size_bytes if last is None else min(last + 1, size_bytes)
    if start >= end:
        raise S3Error(
            416,
            "InvalidRange",
            "The requested range is not satisfiable",
            {"Content-Range": f"bytes */{size_bytes}"},
        )
    return start, end


def _bounded(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) < 19 else 1 << 62


def check_conditions(headers: Mapping[str, str], etag: str, modified_s: int) -> bool:
    """Whether to send the object: False means 304. The order is that of RFC 9110, section 13.2.2.

    Raises:
        S3Error: 412, naming the condition that failed.
    """
    if_match = headers.get("If-Match")
    if if_match is not None:
        if not _listed(if_match, etag, weakly=False):
            raise precondition_failed("If-Match")
    elif _since(headers.get("If-Unmodified-Since"), modified_s) is False:
        raise precondition_failed("If-Unmodified-Since")
    if_none_match = headers.get("If-None-Match")
    if if_none_match is not None:
        return not _listed(if_none_match, etag, weakly=True)
    return _since(headers.get("If-Modified-Since"), modified_s) is not True


def range_counts(headers: Mapping[str, str], etag: str, modified_s: int) -> bool:
    """Whether If-Range, where there is one, names this very version: its ETag or its date."""
    if_range = headers.get("If-Range")
    if if_range in (None, etag):
        return True
    try:
        return parsedate_to_datetime(if_range).timestamp() == modified_s
    except ValueError:
        return False


def precondition_failed(condition: str) -> S3Error:
    """S3's 412, naming the header."""
    text = f"At least one of the pre-conditions you specified did not hold: {condition}"
    return S3Error(412, "PreconditionFailed", text)


def _listed(header: str, etag: str, *, weakly: bool) -> bool:
    for item in header.split(","):
        candidate = item.strip()
        if weakly:
            candidate = candidate.removeprefix("W/")
        if candidate in ("*", etag, etag.strip('"')):  # S3 takes an unquoted ETag too
            return True
    return False


def _since(header: str | None, modified_s: int) -> bool | None:
    """Whether the object is unmodified since that date; None without a valid date."""
    try:
        return None if header is None else modified_s <= parsedate_to_datetime(header).timestamp()
    except ValueError:
        return None


async def aws_chunks(content: StreamReader) -> AsyncIterator[bytes]:
    """The payload of an aws-chunked body; signatures and trailers are read and not checked.

    Raises:
        S3Error: 400 IncompleteBody where the framing is broken or ends early.
    """
    try:
        while True:
            header = _CHUNK_HEADER.fullmatch(await content.readline())
            if header is None:
                raise S3Error(400, "IncompleteBody", "An aws-chunked header is malformed")
            left = int(header[1], 16)
            if not left:
                break
            while left:
                data = await content.read(min(left, _MAX_READ_BYTES))
                if not data:
                    raise S3Error(400, "IncompleteBody", "An aws-chunked body ends early")
                left -= len(data)
                yield data
            if await content.readexactly(2) != b"\r\n":
                raise S3Error(400, "IncompleteBody", "An aws-chunked chunk is longer than it says")
        while (await content.readline()).strip():
            pass
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise S3Error(400, "IncompleteBody", f"An aws-chunked body is broken: {error}") from error


def xml_text(text: str) -> str:
    """Text for an XML element; control characters as references, as S3 writes them."""
    return _CONTROL.sub(lambda match: f"&#x{ord(match.group()):X};", escape(text))
