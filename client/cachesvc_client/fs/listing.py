"""What stands where in the origin, as fsspec's infos: buckets, directories, all below one.

Rules: S3 has no directories; one is there where keys go on behind a slash. A key that ends with a
slash (made by consoles and other tools) marks its directory and is no file. Infos have the names
that s3fs gives them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cachesvc_client.client import CacheClient
from cachesvc_client.fs.paths import uri

Info = dict[str, Any]


def file_info(path: str, size_bytes: int, etag: str, modified: Any) -> Info:
    return {
        "name": path, "size": size_bytes, "type": "file", "ETag": etag, "LastModified": modified,
    }  # fmt: skip


def directory_info(path: str) -> Info:
    return {"name": path, "size": 0, "type": "directory"}


def buckets(client: CacheClient) -> list[Info]:
    """All buckets of the account."""
    answer = client.ask_origin("s3://", "list_buckets")
    return [directory_info(one["Name"]) for one in answer.get("Buckets", [])]


def children(client: CacheClient, bucket: str, folder: str, prefix: str = "") -> list[Info]:
    """What stands right in a directory (its key without the slash at the end; empty: the bucket),
    of names that begin with the prefix. Raises ObjectNotFound for a bucket that is not there.
    """
    found = {}
    for page in _pages(client, bucket, _below(folder) + prefix, "/"):
        for one in page.get("CommonPrefixes", []):
            path = f"{bucket}/{one['Prefix'].rstrip('/')}"
            if path != f"{bucket}/{folder}":  # a key that goes on with a second slash
                found[path] = directory_info(path)
        for one in page.get("Contents", []):
            if not one["Key"].endswith("/"):
                info = _listed(bucket, one)
                found[info["name"]] = info
    return sorted(found.values(), key=lambda info: info["name"])


def below(
    client: CacheClient, bucket: str, folder: str, prefix: str = ""
) -> tuple[list[Info], list[Info]]:
    """All files below a directory, and all directories below it, of names as in `children`."""
    files: list[Info] = []
    folders: dict[str, Info] = {}
    start = _below(folder)
    for page in _pages(client, bucket, start + prefix, ""):
        for one in page.get("Contents", []):
            key = one["Key"]
            if not key.endswith("/"):
                files.append(_listed(bucket, one))
            parts = key[len(start) :].split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                path = f"{bucket}/{start}{'/'.join(parts[:depth])}"
                folders.setdefault(path, directory_info(path))
    return files, list(folders.values())


def is_directory(client: CacheClient, bucket: str, folder: str) -> bool:
    """Whether any key stands below. Raises ObjectNotFound for a bucket that is not there."""
    answer = client.ask_origin(
        uri(f"{bucket}/{folder}"), "list_objects_v2", Bucket=bucket, Prefix=_below(folder),
        MaxKeys=1,
    )  # fmt: skip
    return not folder or bool(answer.get("Contents"))


def _below(folder: str) -> str:
    return folder + "/" if folder else ""


def _listed(bucket: str, one: Any) -> Info:
    return file_info(f"{bucket}/{one['Key']}", one["Size"], one["ETag"], one["LastModified"])


def _pages(client: CacheClient, bucket: str, prefix: str, delimiter: str) -> Iterator[Any]:
    more: dict[str, str] = {"Delimiter": delimiter} if delimiter else {}
    while True:
        page = client.ask_origin(
            uri(f"{bucket}/{prefix}"), "list_objects_v2", Bucket=bucket, Prefix=prefix, **more
        )
        yield page
        if not page.get("IsTruncated"):
            return
        more["ContinuationToken"] = page["NextContinuationToken"]
