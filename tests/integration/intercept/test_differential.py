"""One list of calls, made with interception and without: the same parsed answers, header fields,
errors and bodies; of boto3 and of aiobotocore.

Story: each call is made by a client without interception, then by one with it, on a cold and on a
warm cache. What belongs to one answer and not to the object (dates, request ids) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import cachesvc_client
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.integration.fs.moto import moto_cluster
from tests.integration.intercept.conftest import BUCKET, DATA, SMALL, Counted, Place

PASSING = ("date", "x-amz-request-id", "x-amz-id-2", "x-amzn-requestid")
MOTOS = "x-amz-checksum-algorithm"  # moto says it of uploads in parts, by HEAD alone; S3 never
PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)


@dataclass(frozen=True)
class Call:
    """One call. ours: whether the cache is expected to answer it once the cache is warm."""

    operation: str
    key: str
    ours: bool
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.operation}-{self.key}-{self.parameters}"


def _calls() -> Iterator[Call]:
    for key in ("big", "small", "empty", "lines", "odd/ä b+c%2F?#&=~.txt", "missing", "bi"):
        there = key not in ("missing", "bi")
        for operation in ("get_object", "head_object"):
            yield Call(operation, key, there)
    ranges = {
        "bytes=0-0": True, "bytes=0-": True, "bytes=5-99": True, "bytes=-7": True,
        "bytes=69999-": True, "bytes=69999-999999": True, "bytes=-999999": True,
        "bytes=70000-": False, "bytes=9-5": False, "bytes=-0": False, "bytes=1-2,5-6": False,
        "bytes=a-b": False, "items=0-5": False, "bytes=-": False,
        "bytes=99999999999999999999999-": False,
    }  # fmt: skip
    for text, ours in ranges.items():
        yield Call("get_object", "small", ours, {"Range": text})
    yield Call("get_object", "empty", False, {"Range": "bytes=0-"})
    yield Call("get_object", "big", True, {"Range": "bytes=8000000-17000000"})
    yield Call("head_object", "small", False, {"Range": "bytes=10-19"})
    for operation in ("get_object", "head_object"):
        yield Call(operation, "small", True, {"IfMatch": "<etag>"})
        yield Call(operation, "small", False, {"IfMatch": '"other"'})
        yield Call(operation, "small", False, {"IfNoneMatch": "<etag>"})
        yield Call(operation, "small", False, {"IfNoneMatch": '"other"'})
        yield Call(operation, "small", False, {"IfModifiedSince": PAST})
        yield Call(operation, "small", False, {"IfModifiedSince": FUTURE})
        yield Call(operation, "small", False, {"IfUnmodifiedSince": PAST})
        yield Call(operation, "small", True, {"ChecksumMode": "ENABLED"})
        yield Call(operation, "small", False, {"ExpectedBucketOwner": "123456789012"})
        yield Call(operation, "small", False, {"RequestPayer": "requester"})
        yield Call(operation, "small", False, {"PartNumber": 1})
        yield Call(operation, "small", False, {"VersionId": "null"})
    yield Call("get_object", "small", False, {"IfMatch": '"other"', "Range": "bytes=0-5"})
    yield Call("get_object", "small", False, {"ResponseContentType": "text/plain"})
    yield Call("get_object", "small", False, {"ResponseCacheControl": "no-store"})
    secret = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    yield Call("get_object", "small", False, secret)


CALLS = list(_calls())


def given(call: Call, etag: str) -> dict[str, Any]:
    found = {name: etag if value == "<etag>" else value for name, value in call.parameters.items()}
    return {"Bucket": BUCKET, "Key": call.key} | found


def told(answer: dict[str, Any], body: bytes | None) -> dict[str, Any]:
    """What an answer says of the object, types included."""
    answer = dict(answer)
    kind = type(answer.pop("Body", None)).__name__
    meta = dict(answer.pop("ResponseMetadata"))
    headers = dict(meta.pop("HTTPHeaders"))
    headers.pop(MOTOS, None)
    names = sorted(headers)
    for name in PASSING:
        headers.pop(name, None)
    meta["RequestId"], meta["HostId"] = bool(meta.get("RequestId")), type(meta.get("HostId"))
    types = {name: type(value) for name, value in answer.items()}
    return {
        "answer": answer, "types": types, "meta": meta, "headers": headers, "names": names,
        "kind": kind, "body": body,
    }  # fmt: skip


def failed(error: Exception) -> dict[str, Any]:
    if not isinstance(error, ClientError):
        return {"error": repr(error)}
    response = dict(error.response)
    return {"error": type(error).__name__, "said": str(error)} | told(response, None)


def by_boto3(client: Any, call: Call, etag: str) -> dict[str, Any]:
    try:
        answer = getattr(client, call.operation)(**given(call, etag))
        return told(answer, answer["Body"].read() if "Body" in answer else None)
    except (ClientError, BotoCoreError) as error:
        return failed(error)


async def by_aio(client: Any, call: Call, etag: str) -> dict[str, Any]:
    try:
        answer = await getattr(client, call.operation)(**given(call, etag))
        body = None
        if "Body" in answer:
            async with answer["Body"] as stream:
                body = await stream.read()
        return told(answer, body)
    except (ClientError, BotoCoreError) as error:
        return failed(error)


@pytest.mark.slow
def test_boto3_cannot_tell_the_difference(place: Place, counted: Counted) -> None:
    plain = place.boto()
    etag = str(plain.head_object(Bucket=BUCKET, Key="small")["ETag"])
    expected = [by_boto3(plain, call, etag) for call in CALLS]
    place.install()
    client = place.boto()
    assert [by_boto3(client, call, etag) for call in CALLS] == expected, (
        "some of them for the first time"
    )
    for call, answer in zip(CALLS, expected, strict=True):
        before = counted.answered
        assert by_boto3(client, call, etag) == answer, call
        assert counted.answered - before == int(call.ours), call
    assert counted.faults == 0


@pytest.mark.slow
def test_aiobotocore_cannot_tell_the_difference(place: Place, counted: Counted) -> None:
    etag = str(place.boto().head_object(Bucket=BUCKET, Key="small")["ETag"])

    async def all_of_them(client: Any) -> list[Any]:
        return [await by_aio(client, call, etag) for call in CALLS]

    async def twice(client: Any) -> list[Any]:
        assert await all_of_them(client) == expected
        found = []
        for call in CALLS:
            before = counted.answered
            found.append((await by_aio(client, call, etag), counted.answered - before))
        return found

    expected = place.aio(all_of_them)
    place.install()
    for call, answer, (found, answered) in zip(CALLS, expected, place.aio(twice), strict=True):
        assert found == answer, call
        assert answered == int(call.ours), call
    assert counted.faults == 0


def with_manager(body: Any) -> bytes:
    with body as raw:
        return bytes(raw.read(77)) + bytes(raw.read())


READERS: dict[str, Callable[[Any], Any]] = {
    "read": lambda body: body.read(),
    "read-in-pieces": lambda body: list(iter(lambda: body.read(1_000_003), b"")),
    "read-nothing": lambda body: (body.read(0), body.read(5), body.tell()),
    "readinto": lambda body: (body.readinto(piece := bytearray(100_000)), bytes(piece)),
    "iter": lambda body: [next(body) for _ in range(20)],
    "iter_chunks": lambda body: [len(chunk) for chunk in body.iter_chunks(3_000_000)],
    "iter_lines": lambda body: list(body.iter_lines(keepends=True))[:9],
    "readlines": lambda body: len(body.readlines()),
    "close": lambda body: (body.read(10), body.close(), body.read(10)),
    "readable": lambda body: (body.readable(), body.read(4), body.readable()),
    "timeout": lambda body: (body.set_socket_timeout(3), body.read(9)),
    "raw": lambda body: [len(chunk) for chunk in body._raw_stream.stream(4_000_000)],
    "with": with_manager,
    "raw-read1": lambda body: len(body._raw_stream.read1(1)),
}


@pytest.mark.slow
def test_bodies_read_as_they_do_without(place: Place) -> None:
    def outcomes(client: Any) -> dict[str, Any]:
        return {
            f"{way} {key}": outcome(client, read, key)
            for key in ("big", "lines", "empty")
            for way, read in READERS.items()
        }

    expected = outcomes(place.boto())
    place.install()
    with_it = Counted()
    assert outcomes(place.boto()) == expected
    assert (with_it.answered, with_it.faults) == (len(expected), 0)


def outcome(client: Any, read: Callable[[Any], Any], key: str) -> Any:
    body = client.get_object(Bucket=BUCKET, Key=key)["Body"]
    try:
        return read(body), body.tell()
    except Exception as error:
        return type(error), str(error)
    finally:
        body.close()


def test_bodies_of_aiobotocore_read_as_they_do_without(place: Place) -> None:
    async def outcomes(client: Any) -> list[Any]:
        async def body() -> Any:
            return (await client.get_object(Bucket=BUCKET, Key="lines"))["Body"]

        found: list[Any] = [[len(chunk) async for chunk in (await body()).iter_chunks(1000)]]
        found.append([line async for line in (await body()).iter_lines()])
        async with await body() as stream:
            found += [await stream.read(10), stream.tell(), stream.readable()]
            found.append(await stream.readinto(piece := bytearray(9)))
            found += [bytes(piece), await stream.read(), stream.readable(), await stream.read(5)]
        one = await body()
        one.close()
        try:
            found.append(await one.read(5))
        except Exception as error:
            found.append(type(error))
        return found

    expected = place.aio(outcomes)
    place.install()
    with_it = Counted()
    assert place.aio(outcomes) == expected
    assert (with_it.answered, with_it.faults) == (4, 0)


@pytest.mark.slow
def test_over_another_origin_with_metadata_checksums_and_uploads_in_parts(tmp_path: Path) -> None:
    """moto: what devorigin has not."""
    with moto_cluster(tmp_path) as cluster:
        plain = boto3.client("s3", endpoint_url=cluster.origin)
        plain.create_bucket(Bucket=BUCKET)
        extra = {
            "Metadata": {"color": "grün".encode().hex(), "Mixed-Case": "Yes"},
            "ContentType": "text/plain", "CacheControl": "max-age=5", "ContentEncoding": "gzip",
            "ContentDisposition": "attachment", "StorageClass": "STANDARD_IA",
        }  # fmt: skip
        for number, algorithm in enumerate(("CRC32", "SHA256", "SHA1")):
            plain.put_object(
                Bucket=BUCKET, Key=f"sum-{number}", Body=SMALL, ChecksumAlgorithm=algorithm, **extra
            )
        secret = {"ServerSideEncryption": "aws:kms"}
        plain.put_object(Bucket=BUCKET, Key="kms", Body=SMALL, **secret, **extra)
        parts_of = {"Bucket": BUCKET, "Key": "parts"}
        upload = plain.create_multipart_upload(**parts_of, ChecksumAlgorithm="CRC32")
        where = {**parts_of, "UploadId": upload["UploadId"]}
        parts = [
            {"PartNumber": n + 1, "ETag": plain.upload_part(
                **where, PartNumber=n + 1, Body=DATA[n * 6_000_000 : (n + 1) * 6_000_000],
                ChecksumAlgorithm="CRC32",
            )["ETag"]}
            for n in range(3)
        ]  # fmt: skip
        plain.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        calls = [
            Call(operation, key, key != "kms", parameters)
            for operation in ("head_object", "get_object")
            for key in ("sum-0", "sum-1", "sum-2", "parts", "kms")
            for parameters in ({}, {"ChecksumMode": "ENABLED"}, {"Range": "bytes=3-50000"})
        ]
        expected = [by_boto3(plain, call, "") for call in calls]
        counted = Counted()
        cachesvc_client.install(cluster.endpoint, origin={"endpoint_url": cluster.origin})
        client = boto3.client("s3", endpoint_url=cluster.origin)
        for _ in range(2):
            for call, answer in zip(calls, expected, strict=True):
                found = by_boto3(client, call, "")
                assert {k: (found[k], v) for k, v in answer.items() if found[k] != v} == {}, (
                    call.name
                )
        assert counted.faults == 0
        unsaid = 2 * 2 + 2  # HEAD says the checksum of parts, and not of what it is; HEAD by range
        ours = sum(call.ours for call in calls)
        assert counted.answered >= 2 * ours - unsaid - 8 - 8  # HEADs of the first time are heard
        assert counted.passed("encryption") >= 2 * (len(calls) - ours) - 5
