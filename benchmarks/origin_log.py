"""What the development origin was asked for, from its own log."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

SHAPE = (
    "--first-byte-ms", "30", "--first-byte-p99-ms", "200", "--per-connection-mb-s", "90",
)  # fmt: skip
_LIMIT_S = 60


def _ask(method: str, url: str) -> bytes:
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=_LIMIT_S) as answer:
        return bytes(answer.read())


def new_key(origin: str, bucket: Path, base: str, key: str) -> str:
    """A key that no cache has seen, with the bytes of another; its ETag is known to the origin.

    The key is `key` in letters that need no escape in a URL; returned.
    """
    key = key.replace(" ", "-").replace(",", "")
    (bucket / key).unlink(missing_ok=True)
    os.link(bucket / base, bucket / key)
    _ask("HEAD", f"{origin}/bench/{key}")
    return key


def forget(origin: str) -> None:
    """Begin the log anew."""
    _ask("DELETE", f"{origin}/_devorigin/requests")


def gets(origin: str, key: str, object_bytes: int) -> dict[str, float]:
    """How often and how much of a key was fetched since, and the most that any range came."""
    entries = json.loads(_ask("GET", f"{origin}/_devorigin/requests"))
    found = [one for one in entries if one["key"] == key and one["operation"] == "GetObject"]
    distinct = {tuple(one["range"] or (0, object_bytes)) for one in found}
    sent = sum(one["body_bytes"] for one in found)
    return {
        "GETs": float(len(found)),
        "GETs per extent": len(found) / max(1, len(distinct)),
        "origin bytes / object": sent / object_bytes,
    }
