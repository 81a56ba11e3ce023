"""What an origin refuses: an error of ours that says what to do."""

from __future__ import annotations

import socket

import pytest

from cachesvc.core.errors import (
    AccessDenied,
    InvalidKey,
    NotCacheable,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
)
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.devorigin import DevOrigin
from tests.integration.s3_origin.servers import (
    DATA,
    ETAG,
    NAME,
    Request,
    ScriptedServer,
    answer_right,
    answer_status,
    fetched,
    opened,
    run,
    value,
)
from tests.sinks import BufferSink


def test_a_kept_signature_that_is_refused_is_made_anew_once() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        if request.number == 1:
            return answer_status(403, "AccessDenied", connected)
        return answer_right(request, connected)

    async def main(url: str) -> None:
        async with opened(url) as (origin, metrics):
            await fetched(origin, 0, 1000)
            await fetched(origin, 1000, 2000)
            assert value(metrics, "requests", op="get", code="403") == 1
            assert value(metrics, "retries") == 0

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert len(server.requests) == 3
        assert "X-Amz-Signature=" in server.requests[0].target


def test_a_lasting_refusal_is_access_denied() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        if request.method == "HEAD":
            connected.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return True
        return answer_status(403, "AccessDenied", connected)

    async def main(url: str) -> None:
        async with opened(url) as (origin, _):
            for _ in range(2):
                with pytest.raises(AccessDenied, match=r"s3://bucket/key.*credentials"):
                    await fetched(origin, 0, 1000)
            with pytest.raises(AccessDenied, match=r"s3://bucket/key.*credentials"):
                await origin.head(NAME)

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert [request.method for request in server.requests] == ["GET", "GET", "HEAD"]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "NoSuchKey", ObjectNotFound),
        (412, "PreconditionFailed", ObjectChanged),
        (416, "InvalidRange", ObjectChanged),
        (400, "InvalidBucketName", InvalidKey),
        (400, "ExpiredToken", OriginError),
        (418, "Teapot", OriginError),
    ],
)
def test_statuses_that_no_retry_helps(status: int, code: str, error: type[Exception]) -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        if request.method == "HEAD":
            return answer_right(request, connected)
        return answer_status(status, code, connected)

    async def main(url: str) -> None:
        async with opened(url) as (origin, metrics):
            with pytest.raises(error, match=str(NAME)):
                await fetched(origin, 0, 1000)
            assert value(metrics, "retries") == 0

    with ScriptedServer(script) as server:
        run(main(server.url))


def test_a_name_that_no_bucket_can_have_is_an_invalid_key(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url) as (origin, _):
            version = ObjectVersion(ObjectName("no bucket!", "key"), ETAG, 10)
            with pytest.raises(InvalidKey, match="no bucket!"):
                await origin.head(version.name)
            with pytest.raises(InvalidKey, match="no bucket!"):
                await origin.fetch(version, ByteRange(0, 10), BufferSink(10))

    run(main())


def test_an_etag_with_a_line_break_reaches_no_header(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url) as (origin, _):
            version = ObjectVersion(NAME, '"a"\r\nRange: bytes=0-1\r\nX: "', len(DATA))
            with pytest.raises(NotCacheable):
                await fetched(origin, 0, 1000, version)
            assert not dev.requests

    run(main())


def test_no_credentials_is_an_error_that_says_how_to_give_them(
    dev: DevOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    async def main() -> None:
        async with opened(dev.url) as (origin, _):
            says = "key: no AWS credentials were found on this node: set AWS_ACCESS_KEY_ID"
            with pytest.raises(OriginError, match=says):
                await origin.head(NAME)
            with pytest.raises(OriginError, match=says):
                await fetched(origin, 0, 1000)
            assert not dev.requests
        async with opened(dev.url, anonymous=True) as (origin, _):
            await fetched(origin, 0, 1000, await origin.head(NAME))

    run(main())
