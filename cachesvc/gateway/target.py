"""What a request names: bucket, key and query, from the request line byte for byte.

Rules
- A path is decoded exactly once, from the bytes as sent, and after the bucket was cut off: `//`,
  `..`, `%2F`, `+` and a trailing slash are the client's own. In the query `+` is a space, as S3 has
  it.
- The canonical form (SigV4's) is made from what was decoded: it is what is signed and what is sent
  to the origin.
- Path style always; virtual-host style where the Host is a bucket below the gateway's domain. Of
  a target in absolute form the host does not count: it is not what the client signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from cachesvc.core.types import MAX_KEY_BYTES
from cachesvc.gateway.errors import S3Error

MAX_PARAMETER_COUNT = 100
_UNRESERVED = "-_.~"

Pairs = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A decoded request target. bucket, key: empty where it names none. query: the parameters in
    order; a value None has no `=`. signed_path: the canonical path as the client signed it, which
    in virtual-host style lacks the bucket.
    """

    bucket: str
    key: str
    query: Pairs
    signed_path: str

    @property
    def parameters(self) -> dict[str, str]:
        """The query by name; of a repeated name the first counts."""
        return {name: value or "" for name, value in reversed(self.query)}

    @property
    def path(self) -> str:
        """The canonical path in path style."""
        if not self.bucket:
            return "/"
        return f"/{encoded(self.bucket)}" + (f"/{encoded(self.key, '/')}" if self.key else "")


def parse_target(raw: str, host: str, domain: str) -> Target:
    """The target of a request line (bytes beyond ASCII as surrogate escapes), under its Host.

    domain: the gateway's own for virtual-host style, or "".

    Raises:
        S3Error: 400, a name that no S3 object can have, or a malformed query.
    """
    raw_path, _, raw_query = raw.partition("?")
    if not raw_path.startswith("/"):
        raw_path = "/" + raw_path.partition("://")[2].partition("/")[2]
    bucket, raw_key = _bucket_of(host, domain), raw_path[1:]
    if not bucket:
        raw_bucket, _, raw_key = raw_key.partition("/")
        bucket = _decoded(raw_bucket)
    key = _decoded(raw_key)
    if len(key.encode()) > MAX_KEY_BYTES:
        raise S3Error(
            400,
            "KeyTooLongError",
            "Your key is too long",
            {"Size": str(len(key.encode())), "MaxSizeAllowed": str(MAX_KEY_BYTES)},
        )
    return Target(bucket, key, _pairs(raw_query), encoded(_decoded(raw_path), "/"))


def encoded(text: str, safe: str = "") -> str:
    """Percent-encoded as SigV4 wants it: everything but letters, digits, `-_.~` and `safe`."""
    return quote_from_bytes(text.encode(), safe=_UNRESERVED + safe)


def wire_query(pairs: Pairs) -> str:
    """A query as it is sent: in the order and with the `=` that it came with."""
    return "&".join(
        encoded(name) if value is None else f"{encoded(name)}={encoded(value)}"
        for name, value in pairs
    )


def _bucket_of(host: str, domain: str) -> str:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    suffix = f".{domain.lower()}"
    return name[: -len(suffix)] if domain and name.lower().endswith(suffix) else ""


def _decoded(raw: str) -> str:
    try:
        decoded = unquote_to_bytes(raw.encode("utf-8", "surrogateescape")).decode()
    except UnicodeError as error:
        raise S3Error(400, "InvalidURI", "Couldn't parse the specified URI: not UTF-8") from error
    if "\0" in decoded:
        raise S3Error(400, "InvalidURI", "Couldn't parse the specified URI: a NUL character")
    return decoded


def _pairs(raw_query: str) -> Pairs:
    texts = [text for text in raw_query.split("&") if text]
    if len(texts) > MAX_PARAMETER_COUNT:
        raise S3Error(400, "InvalidURI", f"More than {MAX_PARAMETER_COUNT} query parameters")
    pairs = []
    for text in texts:
        name, separator, value = text.replace("+", " ").partition("=")
        pairs.append((_decoded(name), _decoded(value) if separator else None))
    return tuple(pairs)
