"""Answers that are errors: S3's codes, their XML, and what the errors of cachesvc are in S3.

Rules: an `S3Error` is raised anywhere in the gateway and rendered in one place (`server`); nothing
of a defect is told to the client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape

from cachesvc.core import errors

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
# error class -> (HTTP status, S3's code); a class stands before its bases
_CODES: dict[type[errors.CacheError], tuple[int, str]] = {
    errors.ObjectNotFound: (404, "NoSuchKey"),
    errors.AccessDenied: (403, "AccessDenied"),
    errors.InvalidKey: (400, "InvalidURI"),
    errors.RangeError: (416, "InvalidRange"),
    errors.Overloaded: (503, "SlowDown"),
    errors.InternalError: (500, "InternalError"),
    errors.NoCredentials: (403, "AccessDenied"),  # trying again, as a 5xx has SDKs do, is no use
    errors.CacheError: (503, "ServiceUnavailable"),
}


class S3Error(Exception):
    """An answer that is an error document.

    code: S3's name. details: further elements of the document. headers: beside the body.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    def xml(self, resource: str, request_id: str) -> bytes:
        """The body, in UTF-8."""
        elements = {"Code": self.code, "Message": self.message, **self.details}
        elements |= {"Resource": resource, "RequestId": request_id}
        inner = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in elements.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()


def of_cache_error(error: errors.CacheError) -> S3Error:
    """What an error of a read through the cache is in S3."""
    for kind, (status, code) in _CODES.items():
        if isinstance(error, kind):
            return S3Error(status, code, str(error))
    raise AssertionError("CacheError is in the table")


def not_implemented(operation: str) -> S3Error:
    """501, naming the operation."""
    return S3Error(
        501,
        "NotImplemented",
        f"{operation} is not passed through this cache: send it to the origin itself",
    )


def slow_down(what: str) -> S3Error:
    """503: a named limit of the gateway is reached."""
    return S3Error(503, "SlowDown", f"Please reduce your request rate: {what}")


def _text(text: str) -> str:
    """Text for an XML element; what XML has no form for becomes a question mark."""
    return escape(_UNWRITABLE.sub("?", text))
