"""The paths of fsspec, `bucket/key`, and the names of objects. Pure."""

from __future__ import annotations


def split(path: str) -> tuple[str, str]:
    """Bucket and key of a path without protocol; the key is empty for a bucket."""
    bucket, _, key = path.partition("/")
    return bucket, key


def uri(path: str) -> str:
    """The object's name, as CacheClient takes it."""
    return f"s3://{path}"


def parents(path: str) -> list[str]:
    """All directories above a path, nearest first, down to the list of buckets."""
    found = []
    while path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found
