"""What changes the origin: whole objects, uploads in parts, copies, deletions, buckets.

Rules: what is to be created and stands there already is FileExistsError, decided by the origin in
the same step (If-None-Match). An upload in parts that failed is aborted. Nothing is invalidated
here: whoever writes, says so to the file system, which does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from cachesvc.core.errors import CacheError, ObjectChanged
from cachesvc_client.client import CacheClient
from cachesvc_client.fs.paths import split, uri

LEAST_PART_BYTES = 5 << 20  # of S3
PART_BYTES = 32 << 20
COPY_PART_BYTES = 1 << 30
MAX_COPY_BYTES = 5 << 30  # in one step
DELETE_COUNT = 1000  # in one request


def put(client: CacheClient, path: str, data: Any, exclusive: bool = False) -> None:
    """The whole object. Raises FileExistsError if it is to be created, and is there."""
    with _creating(path, exclusive) as condition:
        client.ask_origin(uri(path), "put_object", **_names(path), Body=data, **condition)


class Upload:
    """An object in parts. `part` in order, then `complete` or `abort`."""

    def __init__(self, client: CacheClient, path: str) -> None:
        self._client = client
        self._path = path
        answer = client.ask_origin(uri(path), "create_multipart_upload", **_names(path))
        self._id = answer["UploadId"]
        self._parts: list[dict[str, Any]] = []

    def part(self, data: Any) -> int:
        """The next bytes, at least LEAST_PART_BYTES but for the last; how many parts there are."""
        answer = self._ask("upload_part", PartNumber=self._next, Body=data)
        self._parts.append({"PartNumber": self._next, "ETag": answer["ETag"]})
        return len(self._parts)

    def copy(self, source: str, start: int, end: int) -> None:
        """The next part: bytes `[start, end)` of another object."""
        bucket, key = split(source)
        answer = self._ask(
            "upload_part_copy", PartNumber=self._next, CopySource={"Bucket": bucket, "Key": key},
            CopySourceRange=f"bytes={start}-{end - 1}",
        )  # fmt: skip
        etag = answer["CopyPartResult"]["ETag"]
        self._parts.append({"PartNumber": self._next, "ETag": etag})

    def complete(self, exclusive: bool = False) -> None:
        """The object is there. Raises FileExistsError as `put` does."""
        with _creating(self._path, exclusive) as condition:
            self._ask(
                "complete_multipart_upload", MultipartUpload={"Parts": self._parts}, **condition
            )

    def abort(self) -> None:
        """Nothing is left of it, as far as the origin can be told."""
        with suppress(CacheError):
            self._ask("abort_multipart_upload")

    @property
    def _next(self) -> int:
        return len(self._parts) + 1

    def _ask(self, operation: str, **parameters: Any) -> Any:
        return self._client.ask_origin(
            uri(self._path), operation, **_names(self._path), UploadId=self._id, **parameters
        )


def put_file(
    client: CacheClient, file: Any, size_bytes: int, path: str, exclusive: bool, told: Any
) -> None:
    """An open local file as an object; told: called with the bytes that are there."""
    if size_bytes <= PART_BYTES:
        put(client, path, file.read(), exclusive)
        told(size_bytes)
        return
    part_bytes = max(PART_BYTES, -(-size_bytes // 9000))  # 10,000 parts are the most
    upload = Upload(client, path)
    try:
        while data := file.read(part_bytes):
            upload.part(data)
            told(len(data))
        upload.complete(exclusive)
    except BaseException:
        upload.abort()
        raise


def copy(client: CacheClient, source: str, target: str, size_bytes: int) -> None:
    """Within the origin; nothing passes through here."""
    bucket, key = split(source)
    if size_bytes <= MAX_COPY_BYTES:
        names = _names(target) | {"CopySource": {"Bucket": bucket, "Key": key}}
        client.ask_origin(uri(target), "copy_object", **names)
        return
    upload = Upload(client, target)
    try:
        for start in range(0, size_bytes, COPY_PART_BYTES):
            upload.copy(source, start, min(start + COPY_PART_BYTES, size_bytes))
        upload.complete()
    except BaseException:
        upload.abort()
        raise


def delete(client: CacheClient, paths: Sequence[str]) -> None:
    """Objects of any buckets. Raises AccessDenied or OSError, naming one that could not be."""
    by_bucket: dict[str, list[str]] = {}
    for path in paths:
        bucket, key = split(path)
        by_bucket.setdefault(bucket, []).append(key)
    for bucket, keys in by_bucket.items():
        for first in range(0, len(keys), DELETE_COUNT):
            wanted = [{"Key": key} for key in keys[first : first + DELETE_COUNT]]
            answer = client.ask_origin(
                uri(bucket), "delete_objects", Bucket=bucket,
                Delete={"Objects": wanted, "Quiet": True},
            )  # fmt: skip
            for failed in answer.get("Errors", []):
                kind = PermissionError if failed.get("Code") == "AccessDenied" else OSError
                raise kind(f"s3://{bucket}/{failed.get('Key')}: not deleted: {failed.get('Code')}")


def make_bucket(client: CacheClient, bucket: str, region: str | None) -> None:
    """A new bucket."""
    where = {} if region in (None, "us-east-1") else {"LocationConstraint": region}
    more = {"CreateBucketConfiguration": where} if where else {}
    client.ask_origin(uri(bucket), "create_bucket", Bucket=bucket, **more)


def remove_bucket(client: CacheClient, bucket: str) -> None:
    """An empty bucket."""
    client.ask_origin(uri(bucket), "delete_bucket", Bucket=bucket)


def _names(path: str) -> dict[str, Any]:
    bucket, key = split(path)
    return {"Bucket": bucket, "Key": key}


@contextmanager
def _creating(path: str, exclusive: bool) -> Iterator[dict[str, str]]:
    try:
        yield {"IfNoneMatch": "*"} if exclusive else {}
    except ObjectChanged as error:
        raise FileExistsError(f"{uri(path)} is there already") from error
