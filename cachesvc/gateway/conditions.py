"""Conditional requests: RFC 9110, section 13, as S3 reads it.

Rules: the order is that of section 13.2.2, before any range; If-Match compares strongly,
If-None-Match weakly; an ETag without its quotes counts as one; a date that is none is ignored, and
one without a zone is in GMT.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from cachesvc.gateway.errors import S3Error


def check(headers: Mapping[str, str], etag: str, modified_s: int) -> bool:
    """Whether to send the object; False is 304.

    Raises:
        S3Error: 412, naming the condition that failed.
    """
    if_match = headers.get("If-Match")
    if if_match is not None:
        if not _listed(if_match, etag, weakly=False):
            raise _failed("If-Match")
    else:
        unmodified_s = _date_s(headers.get("If-Unmodified-Since"))
        if unmodified_s is not None and modified_s > unmodified_s:
            raise _failed("If-Unmodified-Since")
    if_none_match = headers.get("If-None-Match")
    if if_none_match is not None:
        return not _listed(if_none_match, etag, weakly=True)
    since_s = _date_s(headers.get("If-Modified-Since"))
    return since_s is None or modified_s > since_s


def range_holds(headers: Mapping[str, str], etag: str, modified_s: int) -> bool:
    """Whether If-Range, where there is one, lets Range count: a strong ETag or an exact date."""
    if_range = headers.get("If-Range")
    if if_range is None:
        return True
    value = if_range.strip()
    date_s = None if value.startswith(('"', "W/")) else _date_s(value)
    return value == etag if date_s is None else date_s == modified_s


def _failed(condition: str) -> S3Error:
    return S3Error(
        412,
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        {"Condition": condition},
    )


def _listed(header: str, etag: str, *, weakly: bool) -> bool:
    for item in header.split(","):
        candidate = item.strip()
        if weakly:
            candidate = candidate.removeprefix("W/")
        if candidate in ("*", etag, etag.strip('"')):
            return True
    return False


def _date_s(header: str | None) -> float | None:
    if header is None:
        return None
    try:
        date = parsedate_to_datetime(header)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
