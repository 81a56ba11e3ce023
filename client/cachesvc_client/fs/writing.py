"""What changes the origin: whole objects, uploads in parts, copies, deletions, buckets.

Rules: what is to be created and stands there already is FileExistsError, decided by the origin in
the same step (If-None-Match). Nothing is invalidated here: whoever writes, says so to the file
system, which does.

Lost answers: requests without one are repeated (fallback.py), which may come after another
program's write. A repeated creation or completion that is refused looks at what is there. What
cannot be known: the id of an upload whose answer was lost, and parts that land after an abort; a
lifecycle rule of the bucket (AbortIncompleteMultipartUpload) removes both.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import md5
from itertools import pairwise
from typing import Any, Self

from cachesvc.core.errors import CacheError, ObjectChanged, ObjectNotFound, OriginError
from cachesvc_client.client import CacheClient
from cachesvc_client.fs.paths import split, uri

LEAST_PART_BYTES = 5 << 20  # of S3
PART_BYTES = 32 << 20
COPY_PART_BYTES = 1 << 30  # at least twice LEAST_PART_BYTES
MAX_COPY_BYTES = 5 << 30  # in one step
PARTS_OF_A_SIZE = 1000  # then they double, so that 10,000 parts hold S3's largest object
DELETE_COUNT = 1000  # in one request
MARK = "cachesvc-write"  # in the metadata of what was to be created


def put(client: CacheClient, path: str, data: Any, exclusive: bool = False) -> None:
    """The whole object. Raises FileExistsError if it is to be created, and is there.

    What is created has a mark in its metadata, by which this write knows its own object when an
    answer was lost and the origin refuses the repeated request because of the first one.
    """
    mark = {MARK: secrets.token_hex(16)}
    condition = {"IfNoneMatch": "*", "Metadata": mark} if exclusive else {}
    try:
        client.ask_origin(uri(path), "put_object", **_names(path), Body=data, **condition)
    except ObjectChanged as error:
        if _there(client, path).get("Metadata") != mark:
            raise FileExistsError(f"{uri(path)} is there already") from error


class Upload:
    """An object in parts. `part` and `copy` in order, then `complete` or `abort`.

    A context manager: what fails within it, be it a part, aborts the upload, so that its parts are
    not kept, and paid for, by anybody.
    """

    def __init__(self, client: CacheClient, path: str) -> None:
        self._client = client
        self._path = path
        answer = client.ask_origin(uri(path), "create_multipart_upload", **_names(path))
        self._id = answer["UploadId"]
        self._parts: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abort()

    def part(self, data: Any) -> int:
        """The next bytes, at least LEAST_PART_BYTES but for the last.

        Returns how many times as large the next parts are to be: 1 or 2.
        """
        answer = self._ask("upload_part", PartNumber=self._next, Body=data)
        self._add(answer["ETag"])
        return 1 if len(self._parts) % PARTS_OF_A_SIZE else 2

    def copy(self, source: str, etag: str, size_bytes: int) -> None:
        """The next parts: another object as it is now, all of it or ObjectChanged.

        They are about alike, so that none is too small to be followed by others.
        """
        bucket, key = split(source)
        count = -(-size_bytes // COPY_PART_BYTES)
        borders = [size_bytes * number // count for number in range(count + 1)]
        for start, end in pairwise(borders):
            answer = self._ask(
                "upload_part_copy", PartNumber=self._next, CopySourceIfMatch=etag,
                CopySource={"Bucket": bucket, "Key": key},
                CopySourceRange=f"bytes={start}-{end - 1}",
            )  # fmt: skip
            self._add(answer["CopyPartResult"]["ETag"])

    def complete(self, exclusive: bool = False) -> None:
        """The object is there. Raises FileExistsError as `put` does; after an OriginError it may
        be there all the same, if no answer came at all.
        """
        condition = {"IfNoneMatch": "*"} if exclusive else {}
        try:
            self._ask(
                "complete_multipart_upload", MultipartUpload={"Parts": self._parts}, **condition
            )
        except (ObjectNotFound, ObjectChanged) as error:
            if self._is_complete():
                return
            if isinstance(error, ObjectChanged):
                raise FileExistsError(f"{uri(self._path)} is there already") from error
            raise OriginError(
                f"{uri(self._path)}: its upload is gone, and what is there is not its object:"
                " it was aborted or overwritten meanwhile; look, and write again"
            ) from error

    def _is_complete(self) -> bool:
        """An earlier try, whose answer was lost, has made the object: the upload, of which nobody
        else knows, is gone, and the object is of its parts.
        """
        try:
            self._ask("list_parts", MaxParts=1)
        except ObjectNotFound:
            etag: str = _there(self._client, self._path).get("ETag", "")
            return etag.strip('"') == _etag_of(self._parts)
        except CacheError:
            return False
        return False

    def abort(self) -> None:
        """Nothing is left of it, as far as the origin can be told."""
        with suppress(CacheError):
            self._ask("abort_multipart_upload")

    @property
    def _next(self) -> int:
        return len(self._parts) + 1

    def _add(self, etag: str) -> None:
        self._parts.append({"PartNumber": self._next, "ETag": etag})

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
    with Upload(client, path) as upload:
        while data := file.read(part_bytes):
            upload.part(data)
            told(len(data))
        upload.complete(exclusive)


def copy(client: CacheClient, source: str, etag: str, size_bytes: int, target: str) -> None:
    """Within the origin; nothing passes through here. ObjectChanged, if the source is not of this
    ETag any more and has to be copied in parts.
    """
    bucket, key = split(source)
    if size_bytes <= MAX_COPY_BYTES:
        names = _names(target) | {"CopySource": {"Bucket": bucket, "Key": key}}
        client.ask_origin(uri(target), "copy_object", **names)
        return
    with Upload(client, target) as upload:
        upload.copy(source, etag, size_bytes)
        upload.complete()


def delete(client: CacheClient, paths: Sequence[str]) -> None:
    """Objects of any buckets. Raises AccessDenied or OSError, naming one that could not be.

    One alone by DeleteObject: not every store that speaks S3 has DeleteObjects.
    """
    if len(paths) == 1:
        client.ask_origin(uri(paths[0]), "delete_object", **_names(paths[0]))
        return
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


def _there(client: CacheClient, path: str) -> Any:
    """What a HEAD of the object says; nothing, if none is there or it may not be seen."""
    try:
        return client.ask_origin(uri(path), "head_object", **_names(path))
    except CacheError:
        return {}


def _etag_of(parts: Sequence[Mapping[str, Any]]) -> str | None:
    """The ETag of an object of these parts; None where the origin's ETags are no MD5 sums."""
    try:
        sums = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    except ValueError:
        return None
    return f"{md5(sums, usedforsecurity=False).hexdigest()}-{len(parts)}"
