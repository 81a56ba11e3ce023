"""The operations of the development origin: a request in, an answer as S3 would give it.

Rules
- What is not understood is refused by name (501 NotImplemented), never ignored: a wrong answer
  hides a wrong client.
- Every answer carries x-amz-request-id; every error is S3's XML.
- Signatures are not checked; presigned requests are taken as they are.

Story: `handle` parses the target, logs the request, draws its faults, waits for its first byte, and
calls one method per operation: `_get_object` (HEAD too) -> compose -> send; `_put_object` -> Upload
-> commit; the rest is small.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from email.utils import formatdate

from aiohttp import ClientPayloadError
from aiohttp.web import BaseRequest, RequestPayloadError, Response, StreamResponse

from cachesvc.devorigin.answer import compose
from cachesvc.devorigin.faults import Fault, FaultPlan, Shape
from cachesvc.devorigin.folder import Folder, OpenObject
from cachesvc.devorigin.http import (
    S3Error,
    Target,
    aws_chunks,
    check_conditions,
    parse_range,
    parse_target,
    precondition_failed,
    range_counts,
)
from cachesvc.devorigin.listing import ListQuery, buckets_xml, objects_xml
from cachesvc.devorigin.log import Entry, RequestLog
from cachesvc.devorigin.send import send

ADMIN = "_devorigin"
_PRESIGNED = frozenset({"awsaccesskeyid", "signature", "expires", "x-id"})
_LIST_PARAMETERS = frozenset(
    {
        "list-type",
        "prefix",
        "delimiter",
        "max-keys",
        "continuation-token",
        "start-after",
        "encoding-type",
        "fetch-owner",
    }
)
_OPERATIONS = {
    (0, "GET"): "ListBuckets",
    (1, "GET"): "ListObjectsV2",
    (1, "HEAD"): "HeadBucket",
    (1, "PUT"): "CreateBucket",
    (1, "DELETE"): "DeleteBucket",
    (2, "GET"): "GetObject",
    (2, "HEAD"): "HeadObject",
    (2, "PUT"): "PutObject",
    (2, "DELETE"): "DeleteObject",
}
_REFUSED = {  # operations that share a method with others, by the parameter that tells them apart
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("POST", "delete"): "DeleteObjects",
    ("PUT", "partNumber"): "UploadPart",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
}
_LEVELS = ("the service", "a bucket", "an object")

_Handler = Callable[[BaseRequest, Target, Entry, Sequence[Fault]], Awaitable[StreamResponse]]


class Service:
    """Answers requests out of a Folder. Made anywhere, run on one event loop.

    plan, shape: in force; may be replaced from any thread.
    """

    def __init__(self, folder: Folder, shape: Shape, log: RequestLog, seed: int) -> None:
        self.plan = FaultPlan((), seed)
        self._folder = folder
        self.shape = shape
        self._log = log
        self._seed = seed
        self._dice = random.Random(seed)
        self._ids = itertools.count(1)
        self._handlers: dict[str, _Handler] = {
            "ListBuckets": self._list_buckets,
            "ListObjectsV2": self._list_objects,
            "HeadBucket": self._head_bucket,
            "CreateBucket": self._create_bucket,
            "DeleteBucket": self._delete_bucket,
            "GetObject": self._get_object,
            "HeadObject": self._get_object,
            "PutObject": self._put_object,
            "DeleteObject": self._delete_object,
        }

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Answer one request; cancelled when its client goes."""
        raw = request.raw_path
        if raw.startswith(f"/{ADMIN}/"):
            return await self._admin(request, raw)
        entry = Entry(
            request.method,
            request_id=f"{next(self._ids):016X}",
            if_match=request.headers.get("If-Match"),
        )
        self._log.add(entry)
        try:
            response = await self._answer(request, raw, entry)
        except S3Error as error:
            response = _error_response(error, request, entry)
        except ConnectionError:  # the client is gone; aiohttp fails to send this, and ends quietly
            _abort(request)
            response = Response(status=500)
        except OSError as error:
            failure = S3Error(500, "InternalError", f"devorigin can't serve this: {error}")
            response = _error_response(failure, request, entry)
        finally:
            entry.end()
        return response

    async def _answer(self, request: BaseRequest, raw: str, entry: Entry) -> StreamResponse:
        target = parse_target(raw)
        entry.bucket, entry.key = target.bucket, target.key
        entry.operation = _operation(request, target)
        ranged = "Range" in request.headers
        faults = self.plan.draw(request.method, target.key, ranged=ranged)
        entry.faults = tuple(fault.kind for fault in faults)
        delay_s = sum(fault.delay_ms for fault in faults if fault.kind == "slow_first_byte") / 1000
        if request.method in ("GET", "HEAD"):
            delay_s += self.shape.first_byte_s(self._dice)
        if delay_s:
            await asyncio.sleep(delay_s)
        if "503" in entry.faults:
            raise S3Error(503, "SlowDown", "Please reduce your request rate")
        if "500" in entry.faults:
            raise S3Error(500, "InternalError", "We encountered an internal error")
        handler = self._handlers.get(entry.operation)
        if handler is None:
            text = f"devorigin does not implement {entry.operation}"
            raise S3Error(501, "NotImplemented", text)
        return await handler(request, target, entry, faults)

    async def _get_object(
        self, request: BaseRequest, target: Target, entry: Entry, faults: Sequence[Fault]
    ) -> StreamResponse:
        with self._folder.open(target.bucket, target.key) as opened:
            etag = await self._etag(opened)
            headers = {
                "Last-Modified": formatdate(opened.modified_s, usegmt=True),
                "x-amz-request-id": entry.request_id,
            }
            lying = "etag_change" in entry.faults
            if not lying and not check_conditions(request.headers, etag, opened.modified_s):
                return _finished(entry, Response(status=304, headers=headers | {"ETag": etag}))
            counts = range_counts(request.headers, etag, opened.modified_s)
            asked = request.headers.get("Range") if counts else None
            entry.range = parse_range(asked, opened.size_bytes)
            answer = compose(opened.size_bytes, etag, entry.range, faults)
            headers |= answer.headers | {"Content-Type": "binary/octet-stream"}
            if request.method == "HEAD":
                response = StreamResponse(status=answer.status, headers=headers)
                response.content_length = answer.length_bytes
                return _finished(entry, response)
            mb_s = self.shape.per_connection_mb_s
            return await send(request, opened, replace(answer, headers=headers), entry, mb_s)

    async def _put_object(
        self, request: BaseRequest, target: Target, entry: Entry, _: Sequence[Fault]
    ) -> StreamResponse:
        with self._folder.upload(target.bucket) as upload:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            async for data in _body(request):
                upload.write(data)
            promised = request.headers.get("x-amz-decoded-content-length")
            if promised is not None and promised != str(upload.length_bytes):
                text = f"{promised} bytes were promised and {upload.length_bytes} came"
                raise S3Error(400, "IncompleteBody", text)
            etag = self._folder.commit(upload, target.bucket, target.key, _write_condition(request))
        return _finished(entry, Response(headers={"ETag": etag}))

    async def _delete_object(
        self, _: BaseRequest, target: Target, entry: Entry, __: Sequence[Fault]
    ) -> StreamResponse:
        self._folder.delete(target.bucket, target.key)
        return _finished(entry, Response(status=204))

    async def _list_objects(
        self, _: BaseRequest, target: Target, entry: Entry, __: Sequence[Fault]
    ) -> StreamResponse:
        query = ListQuery.parse(target.query)
        body = await asyncio.to_thread(objects_xml, self._folder, target.bucket, query)
        return _finished(entry, Response(body=body, content_type="application/xml"))

    async def _list_buckets(
        self, _: BaseRequest, __: Target, entry: Entry, ___: Sequence[Fault]
    ) -> StreamResponse:
        body = buckets_xml(self._folder)
        return _finished(entry, Response(body=body, content_type="application/xml"))

    async def _head_bucket(
        self, _: BaseRequest, target: Target, entry: Entry, __: Sequence[Fault]
    ) -> StreamResponse:
        self._folder.bucket(target.bucket)
        return _finished(entry, Response(headers={"x-amz-bucket-region": "us-east-1"}))

    async def _create_bucket(
        self, request: BaseRequest, target: Target, entry: Entry, _: Sequence[Fault]
    ) -> StreamResponse:
        await request.read()  # its location constraint
        self._folder.create_bucket(target.bucket)
        return _finished(entry, Response(headers={"Location": f"/{target.bucket}"}))

    async def _delete_bucket(
        self, _: BaseRequest, target: Target, entry: Entry, __: Sequence[Fault]
    ) -> StreamResponse:
        self._folder.delete_bucket(target.bucket)
        return _finished(entry, Response(status=204))

    async def _etag(self, opened: OpenObject) -> str:
        known = self._folder.known_etag(opened)
        if known is not None:
            return known
        return await asyncio.to_thread(self._folder.etag, opened)

    async def _admin(self, request: BaseRequest, raw: str) -> StreamResponse:
        match request.method, raw.removeprefix(f"/{ADMIN}/"):
            case "GET", "requests":
                entries = [asdict(entry) for entry in self._log.snapshot()]
                return Response(text=json.dumps(entries), content_type="application/json")
            case "DELETE", "requests":
                self._log.clear()
                return Response(status=204)
            case "PUT", "faults":
                try:
                    faults = [Fault(**each) for each in json.loads(await request.read())]
                except (TypeError, ValueError) as error:
                    return Response(status=400, text=f"not a JSON list of faults: {error}\n")
                self.plan = FaultPlan(faults, self._seed)
                return Response(status=204)
        return Response(status=404, text=f"devorigin has no {request.method} {raw}\n")


def _operation(request: BaseRequest, target: Target) -> str:
    """S3's name for the request; one without a handler if it asks for what is not understood."""
    method = request.method
    names = {name for name in target.query if not _is_auth(name)}
    if "x-amz-copy-source" in request.headers:
        return "CopyObject"
    for name in sorted(names):
        if (method, name) in _REFUSED:
            return _REFUSED[method, name]
    level = (1 if target.bucket else 0) + (1 if target.key else 0)
    unnamed = f"{method} of {_LEVELS[level]}"
    operation = _OPERATIONS.get((level, method), unnamed)
    if operation == "ListObjectsV2":
        names -= _LIST_PARAMETERS
        if target.query.get("list-type") != "2":
            operation = unnamed if names else "ListObjects version 1 (use list-type=2)"
    return operation + "?" + "&".join(sorted(names)) if names else operation


def _is_auth(name: str) -> bool:
    return name.lower().startswith("x-amz-") or name.lower() in _PRESIGNED


async def _body(request: BaseRequest) -> AsyncIterator[bytes]:
    streaming = request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
    chunks = aws_chunks(request.content) if streaming else request.content.iter_any()
    try:
        async for data in chunks:
            yield data
    except (ClientPayloadError, RequestPayloadError) as error:
        raise S3Error(400, "IncompleteBody", f"The body is broken: {error}") from error


def _write_condition(request: BaseRequest) -> Callable[[str | None], None] | None:
    if_match = request.headers.get("If-Match")
    if_none_match = request.headers.get("If-None-Match")
    if if_match is None and if_none_match is None:
        return None

    def allow(etag: str | None) -> None:
        if if_match is not None and etag is None:
            raise S3Error(404, "NoSuchKey", "The specified key does not exist")
        if etag is not None and not check_conditions(request.headers, etag, 0):
            raise precondition_failed("If-None-Match")

    return allow


def _finished(entry: Entry, response: StreamResponse) -> StreamResponse:
    """Stamp and log a response that aiohttp sends after the handler has returned."""
    response.headers["x-amz-request-id"] = entry.request_id
    entry.status = response.status
    if isinstance(response, Response) and isinstance(response.body, bytes):
        entry.body_bytes = len(response.body)
    return response


def _abort(request: BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


def _error_response(error: S3Error, request: BaseRequest, entry: Entry) -> StreamResponse:
    body = b"" if request.method == "HEAD" else error.xml(request.raw_path, entry.request_id)
    response = Response(
        status=error.status, headers=error.headers, body=body, content_type="application/xml"
    )
    if not request.content.is_eof():
        response.force_close()  # the rest of the body is not worth reading
    return _finished(entry, response)
