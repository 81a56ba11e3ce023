"""Probes against an origin that misbehaves: a proven version, or a HEAD must tell; never a hang."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from cachesvc.core.errors import AccessDenied, ObjectChanged, ObjectNotFound, OriginError
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.origin.s3 import S3Origin
from tests.integration.s3_origin.servers import (
    DATA,
    ETAG,
    NAME,
    Request,
    ScriptedServer,
    answer_status,
    head_206,
    opened,
    run,
    value,
)
from tests.sinks import ProbeSink

END = len(DATA)
BLOCK_BYTES = 8 << 20
Script = Callable[[Request, socket.socket], bool]


async def probed(
    origin: S3Origin, start: int = 0, end: int = BLOCK_BYTES, name: ObjectName = NAME
) -> ObjectVersion | None:
    """Probe; check every byte that landed, and that the buffer is free afterwards."""
    sink = ProbeSink(start, end)
    proven = False
    try:
        proven = await origin.probe(name, ByteRange(start, end), sink)
    finally:
        assert bytes(sink.buffer[: sink.count_bytes]) == DATA[start : start + sink.count_bytes]
        landed_all = sink.version is not None and sink.count_bytes == len(sink.buffer)
        assert proven <= landed_all
        sink.free()
    assert proven == (sink.version is not None)
    return sink.version


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, BLOCK_BYTES), (0, END), (0, 1), (65_536, 131_072), (END - 1, BLOCK_BYTES)],
)
def test_a_probe_finds_what_head_finds_and_lands_the_range(
    dev: DevOrigin, start: int, end: int
) -> None:
    async def main() -> None:
        async with opened(dev.url) as (origin, metrics):
            version = await probed(origin, start, end)
            assert [request.operation for request in dev.requests] == ["GetObject"]
            assert dev.requests[0].if_match is None
            assert version == await origin.head(NAME)
            assert value(metrics, "bytes") == min(end, END) - start

    run(main())


def test_a_probe_that_is_cut_goes_on_with_if_match_behind_what_has_landed(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, attempts=2) as (origin, _):
            dev.faults = [Fault("cut", after_bytes=100_000, count=7)]
            version = await probed(origin)
            assert version is not None
            gets = dev.requests
            assert [request.range for request in gets] == [
                (start, END) for start in range(0, END, 100_000)
            ]
            assert [request.if_match for request in gets] == [None, *[version.etag] * 7]

    run(main())


def test_an_overwrite_between_a_probe_and_its_retry_is_object_changed() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        if request.number:
            return answer_status(412, "PreconditionFailed", connected)
        connected.sendall(_cut_206(request) + DATA[:300_000])
        return False

    async def main(url: str) -> None:
        async with opened(url) as (origin, _):
            with pytest.raises(ObjectChanged, match=str(NAME)):
                await probed(origin)

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert [request.start for request in server.requests] == [0, 300_000]
        assert f"If-Match: {ETAG}" in server.requests[1].head


def _cut_206(request: Request, **instead: str) -> bytes:
    """The right head for a range that reaches beyond the end, but for some fields."""
    fields = {
        "content-range": f"bytes {request.start}-{END - 1}/{END}",
        "content-length": str(END - request.start),
        "etag": ETAG,
    }
    for name, text in instead.items():
        fields[name.replace("_", "-")] = text
    lines = "".join(f"{name}: {text}\r\n" for name, text in fields.items() if text)
    return f"HTTP/1.1 206 Partial Content\r\n{lines}\r\n".encode()


def _status(number: int, code: str) -> Script:
    return lambda _request, connected: answer_status(number, code, connected)


def _odd(**instead: str) -> Script:
    def script(request: Request, connected: socket.socket) -> bool:
        connected.sendall(_cut_206(request, **instead) + DATA)
        return True

    return script


def _whole(etag: str = ETAG, length: str = str(END)) -> Script:
    def script(_request: Request, connected: socket.socket) -> bool:
        fields = f"ETag: {etag}\r\n" + (f"Content-Length: {length}\r\n" if length else "")
        connected.sendall(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + DATA)
        return bool(length)

    return script


def _chunked(request: Request, connected: socket.socket) -> bool:
    head = _cut_206(request, content_length="", transfer_encoding="chunked")
    connected.sendall(head + f"{END:x}\r\n".encode() + DATA + b"\r\n0\r\n\r\n")
    return True


UNPROVEN: dict[str, Script] = {
    "416": _status(416, "InvalidRange"),
    "412 to no condition": _status(412, "PreconditionFailed"),
    "no Content-Range": _odd(content_range=""),
    "an unknown size": _odd(content_range=f"bytes 0-{END - 1}/*"),
    "another start": _odd(content_range=f"bytes 1-{END - 1}/{END}"),
    "another end": _odd(content_range=f"bytes 0-{END - 2}/{END}"),
    "a short range": _odd(content_range=f"bytes 0-99/{END}", content_length="100"),
    "an enormous size": _odd(content_range=f"bytes 0-{END - 1}/{10**15 - 1}"),
    "another length": _odd(content_length=str(END - 1)),
    "no length": _odd(content_length=""),
    "a length that is none": _odd(content_length="many"),
    "no ETag": _odd(etag=""),
    "a weak ETag": _odd(etag='W/"weak"'),
    "a long ETag": _odd(etag=f'"{"e" * 300}"'),
    "chunked": _chunked,
    "the whole without a length": _whole(length=""),
    "the whole of nothing": _whole(length="0"),
    "the whole with a weak ETag": _whole(etag='W/"weak"'),
    "more than the range": _whole(length=str(BLOCK_BYTES + 1)),
}


@pytest.mark.parametrize("script", UNPROVEN.values(), ids=UNPROVEN)
def test_an_answer_that_proves_too_little_lands_nothing_and_is_left(script: Script) -> None:
    async def main(url: str) -> None:
        async with opened(url) as (origin, metrics):
            assert await probed(origin) is None
            assert value(metrics, "retries") == 0
            assert value(metrics, "bytes") == 0

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert [request.method for request in server.requests] == ["GET"]


def test_a_range_in_the_middle_answered_by_the_whole_object_is_left() -> None:
    async def main(url: str) -> None:
        async with opened(url) as (origin, _):
            assert await probed(origin, 65_536, 131_072) is None

    with ScriptedServer(_whole()) as server:
        run(main(server.url))


def test_an_origin_that_knows_no_ranges_proves_an_object_that_fits() -> None:
    async def main(url: str) -> None:
        async with opened(url) as (origin, _):
            version = await probed(origin)
            assert version == ObjectVersion(NAME, ETAG, END)

    with ScriptedServer(_whole()) as server:
        run(main(server.url))


@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [
        (404, ObjectNotFound, 1),
        (403, AccessDenied, 1),
        (503, OriginError, 4),
        (418, OriginError, 1),
    ],
)
def test_before_its_head_a_probe_fails_as_a_head_does(
    status: int, kind: type[Exception], requests: int
) -> None:
    async def main(url: str) -> None:
        async with opened(url) as (origin, _):
            with pytest.raises(kind, match=str(NAME)):
                await probed(origin)

    with ScriptedServer(_status(status, "Code")) as server:
        run(main(server.url))
        assert len(server.requests) == requests


def test_a_probe_that_passes_after_a_503_names_no_version_twice() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        if request.number == 0:
            return answer_status(503, "SlowDown", connected)
        connected.sendall(_cut_206(request) + DATA)
        return True

    async def main(url: str) -> None:
        async with opened(url) as (origin, metrics):
            assert await probed(origin) is not None
            assert value(metrics, "retries") == 1

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert not any("If-Match" in request.head for request in server.requests)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 206 Partial", head_206])
def test_a_probe_that_is_left_in_silence_is_an_error_in_time(
    said: bytes | Callable[[Request], bytes],
) -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        connected.sendall(said if isinstance(said, bytes) else said(request))
        connected.recv(1)  # until the node has had enough
        return False

    async def main(url: str) -> None:
        async with opened(url, read_timeout_ms=200, attempts=2) as (origin, _):
            with pytest.raises(OriginError, match="no bytes for 200 ms"):
                await probed(origin, 0, END)

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert len(server.requests) == 2
