"""AWS Signature Version 4 for S3, without I/O: for requests that come and for those that leave.

Rules: S3's rules, not those of other services: the path is encoded once and not normalised. A
signature is compared in constant time. Nothing here knows keys by name; `auth` does.

Source: AWS, "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API Reference.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from cachesvc.gateway.target import Pairs, encoded

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signing key is good for. day: `YYYYMMDD`."""

    day: str
    region: str
    service: str = "s3"

    def __str__(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"

    def key(self, secret: str) -> bytes:
        """The signing key."""
        key = f"AWS4{secret}".encode()
        for part in (self.day, self.region, self.service, "aws4_request"):
            key = _hmac(key, part)
        return key


@dataclass(frozen=True, slots=True)
class Signable:
    """What of a request is signed. path: canonical. headers: the signed ones, names in lower case.
    payload: the value of x-amz-content-sha256.
    """

    method: str
    path: str
    query: Pairs
    headers: Mapping[str, str]
    payload: str

    @property
    def signed_headers(self) -> str:
        return ";".join(sorted(self.headers))

    def signature(self, key: bytes, time: str, scope: Scope) -> str:
        """Hexadecimal. time: `YYYYMMDDTHHMMSSZ`."""
        canonical = "\n".join(
            (
                self.method,
                self.path,
                canonical_query(self.query),
                *(f"{name}:{_folded(self.headers[name])}" for name in sorted(self.headers)),
                "",
                self.signed_headers,
                self.payload,
            )
        )
        digest = sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
        return string_signature(key, "\n".join((ALGORITHM, time, str(scope), digest)))


def canonical_query(pairs: Iterable[tuple[str, str | None]]) -> str:
    """The parameters encoded and sorted."""
    return "&".join(
        f"{name}={value}"
        for name, value in sorted((encoded(name), encoded(value or "")) for name, value in pairs)
    )


def string_signature(key: bytes, text: str) -> str:
    """The signature of a string to sign, hexadecimal."""
    return _hmac(key, text).hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _folded(value: str) -> str:
    return " ".join(value.split())
