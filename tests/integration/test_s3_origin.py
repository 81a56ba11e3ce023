"""S3Origin against an origin that misbehaves: always right bytes, or an error that names things.

Story: `DevOrigin` brings the faults of a store that speaks HTTP properly; `ScriptedServer` those of
one that doesn't, and the moments that need a hand on the socket (stale keep-alive, TLS, refusals).
Everything runs on loopback; waits are for events, never for time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cachesvc.core.errors import (
    AccessDenied,
    InvalidKey,
    NotCacheable,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    Overloaded,
)
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.metrics import Metrics
from cachesvc.origin.budget import RetryBudget
from cachesvc.origin.s3 import S3Origin, S3Settings

NAME = ObjectName("bucket", "key")
DATA = bytes(i * 7 % 251 for i in range(700_001))
ETAG = '"the-etag"'
VERSION = ObjectVersion(NAME, ETAG, len(DATA))


class BufferSink:
    """Bytes land in a bytearray; `first` is set at the first landing."""

    def __init__(self, length_bytes: int) -> None:
        self.buffer = bytearray(length_bytes)
        self.view = memoryview(self.buffer)
        self.cancelled = False
        self.count_bytes = 0
        self.first = threading.Event()

    def landed(self, count_bytes: int) -> None:
        assert self.count_bytes <= count_bytes <= len(self.buffer)
        self.count_bytes = count_bytes
        self.first.set()

    def free(self) -> None:
        """Raises BufferError if anybody still holds the buffer."""
        self.view.release()
        self.buffer.clear()


@dataclass(frozen=True)
class Request:
    """What a ScriptedServer has read: the request line's parts and the range asked for."""

    method: str
    target: str
    number: int
    connection: int
    start: int
    end: int
    head: str


Script = Callable[[Request, socket.socket], bool]


class ScriptedServer:
    """Answers each request by a script, which says whether to keep the connection."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self._script = script
        self._context = context
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> ScriptedServer:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in [self._listener, *self._connections]:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                self._connections.append(connected)
                self._start(self._serve, connected, len(self._connections))

    def _serve(self, connected: socket.socket, connection: int) -> None:
        with contextlib.ExitStack() as exits, contextlib.suppress(OSError):
            exits.callback(connected.close)
            if self._context:
                connected = self._context.wrap_socket(connected, server_side=True)
                exits.callback(connected.close)
            while (request := self._read(connected, connection)) is not None:
                if not self._script(request, connected):
                    return

    def _read(self, connected: socket.socket, connection: int) -> Request | None:
        raw = b""
        while b"\r\n\r\n" not in raw:
            received = connected.recv(65536)
            if not received:
                return None
            raw += received
        head = raw.decode()
        method, target, _ = head.split(" ", 2)
        found = re.search(r"range: bytes=(\d+)-(\d+)", head, re.IGNORECASE)
        start, end = (int(found[1]), int(found[2]) + 1) if found else (0, len(DATA))
        with self._lock:
            number = len(self.requests)
            request = Request(method, target, number, connection, start, end, head)
            self.requests.append(request)
        return request


def answer_right(request: Request, connected: socket.socket) -> bool:
    """The answer that S3 would give for DATA."""
    if request.method == "HEAD":
        connected.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\nETag: {ETAG}\r\n\r\n".encode()
        )
    else:
        connected.sendall(head_206(request) + DATA[request.start : request.end])
    return True


def head_206(request: Request, extra: str = "") -> bytes:
    return (
        "HTTP/1.1 206 Partial Content\r\n"
        f"Content-Range: bytes {request.start}-{request.end - 1}/{len(DATA)}\r\n"
        f"Content-Length: {request.end - request.start}\r\nETag: {ETAG}\r\n{extra}\r\n"
    ).encode()


def answer_status(status: int, code: str, connected: socket.socket) -> bool:
    body = f"<Error><Code>{code}</Code><Message>because</Message></Error>"
    connected.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    return True


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[DevOrigin]:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as server:
        server.put(NAME.bucket, NAME.key, DATA)
        yield server


@asynccontextmanager
async def opened(
    url: str | None, budget: RetryBudget | None = None, **settings: Any
) -> AsyncIterator[tuple[S3Origin, Metrics]]:
    metrics = Metrics()
    origin = S3Origin(S3Settings(endpoint_url=url, **settings), metrics, budget)
    try:
        yield origin, metrics
    finally:
        await origin.close()


async def fetched(
    origin: S3Origin, start: int = 0, end: int = len(DATA), version: ObjectVersion = VERSION
) -> None:
    """Fetch, and check every byte and that the buffer is free afterwards."""
    sink = BufferSink(end - start)
    try:
        await origin.fetch(version, ByteRange(start, end), sink)
        assert sink.count_bytes == end - start
        assert sink.buffer == DATA[start:end]
    finally:
        landed = sink.count_bytes
        assert sink.buffer[:landed] == DATA[start : start + landed]
        sink.free()


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"cachesvc_origin_{name}_total", labels) or 0.0


def run(main: Awaitable[None]) -> None:
    async def body() -> None:
        await main

    asyncio.run(body())


ONCE = [
    Fault("503", count=2),
    Fault("500", count=2),
    Fault("cut", count=2),
    Fault("cut", count=1, after_bytes=0),
    Fault("reset", count=2),
    Fault("short_length", count=2),
    Fault("long_length", count=2),
    Fault("wrong_range", count=2),
    Fault("full_200", count=2),
    Fault("stall", count=1, delay_ms=60_000),
    Fault("slow_first_byte", count=1, delay_ms=60_000),
    Fault("slow_first_byte", count=1, delay_ms=50),
    Fault("no_etag", count=1),
]


@pytest.mark.parametrize("fault", ONCE, ids=lambda fault: f"{fault.kind}-{fault.after_bytes}")
def test_a_passing_fault_costs_a_retry_and_no_byte(dev: DevOrigin, fault: Fault) -> None:
    async def main() -> None:
        async with opened(dev.url, read_timeout_ms=400) as (origin, metrics):
            version = await origin.head(NAME)
            dev.faults = [fault]
            await fetched(origin, 1000, 600_000, version)
            slow_but_in_time = fault.kind == "slow_first_byte" and fault.delay_ms < 400
            assert value(metrics, "retries") == (0 if slow_but_in_time else fault.count)

    run(main())


ALWAYS = ["503", "500", "cut", "reset", "short_length", "long_length", "wrong_range", "full_200"]


@pytest.mark.parametrize("kind", [*ALWAYS, "stall", "slow_first_byte", "no_etag"])
def test_a_lasting_fault_is_an_error_that_names_origin_and_object(
    dev: DevOrigin, kind: str
) -> None:
    async def main() -> None:
        async with opened(dev.url, read_timeout_ms=200, attempts=2) as (origin, _):
            version = await origin.head(NAME)
            after = 10 if kind in ("cut", "reset", "short_length", "stall") else None
            dev.faults = [Fault(kind, after_bytes=after, delay_ms=60_000)]
            with pytest.raises(OriginError) as caught:
                await fetched(origin, 1000, 600_000, version)
            assert str(NAME) in str(caught.value)
            assert dev.url in str(caught.value)

    run(main())


@pytest.mark.parametrize("kind", ["etag_change", "weak_etag"])
def test_an_answer_of_another_version_is_object_changed(dev: DevOrigin, kind: str) -> None:
    async def main() -> None:
        async with opened(dev.url) as (origin, metrics):
            version = await origin.head(NAME)
            dev.faults = [Fault(kind)]
            with pytest.raises(ObjectChanged, match=str(NAME)):
                await fetched(origin, 0, 1000, version)
            assert value(metrics, "retries") == 0

    run(main())


def test_a_retry_resumes_behind_what_has_landed(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, attempts=2) as (origin, metrics):
            version = await origin.head(NAME)
            dev.clear_log()
            dev.faults = [Fault("cut", after_bytes=100_000, count=7)]
            await fetched(origin, 0, len(DATA), version)
            ranges = [request.range for request in dev.requests]
            assert ranges == [(start, len(DATA)) for start in range(0, len(DATA), 100_000)]
            assert {request.if_match for request in dev.requests} == {version.etag}
            assert sum(request.body_bytes for request in dev.requests) == len(DATA)
            assert value(metrics, "bytes") == len(DATA)

    run(main())


def test_an_overwrite_between_two_attempts_is_object_changed() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        if request.number:
            return answer_status(412, "PreconditionFailed", connected)
        connected.sendall(head_206(request) + DATA[:300_000])
        return False

    async def main(url: str) -> None:
        async with opened(url) as (origin, _):
            with pytest.raises(ObjectChanged, match=str(NAME)):
                await fetched(origin)

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert [request.start for request in server.requests] == [0, 300_000]


def test_the_budget_ends_retries_before_the_attempts_do(dev: DevOrigin) -> None:
    async def main() -> None:
        budget = RetryBudget(share=0.0, per_second=0.0, most=2.0)
        async with opened(dev.url, budget, attempts=100) as (origin, metrics):
            version = await origin.head(NAME)
            dev.faults = [Fault("503", method="*")]
            with pytest.raises(OriginError, match="503"):
                await fetched(origin, 0, 1000, version)
            with pytest.raises(OriginError, match="503"):
                await origin.head(NAME)
            assert value(metrics, "retries") == 2
            assert value(metrics, "requests", op="get", code="503") == 3
            assert value(metrics, "requests", op="head", code="503") == 1

    run(main())


def test_head_and_list_are_retried_too(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url) as (origin, metrics):
            dev.faults = [Fault("503", method="*", count=2)]
            assert (await origin.head(NAME)).size_bytes == len(DATA)
            dev.faults = [Fault("500", method="*", count=2)]
            assert len((await origin.list(NAME.bucket, "", "", None, 10)).versions) == 1
            assert value(metrics, "retries") == 4
            assert value(metrics, "requests", op="list", code="200") == 1

    run(main())


@pytest.mark.parametrize(
    "kind", ["cut", "reset", "short_length", "stall", "wrong_range", "full_200"]
)
def test_a_bypass_is_never_short(dev: DevOrigin, kind: str) -> None:
    async def main() -> None:
        async with opened(dev.url, read_timeout_ms=200) as (origin, _):
            dev.faults = [Fault(kind, delay_ms=60_000)]
            with pytest.raises(OriginError, match=str(NAME)):
                async with origin.stream(NAME, 10, 600_000) as stream:
                    assert [chunk async for chunk in stream.chunks]

    run(main())


def test_cancelling_a_fetch_frees_its_thread_and_its_buffer(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, max_gets=1, read_timeout_ms=600_000) as (origin, _):
            version = await origin.head(NAME)
            dev.faults = [Fault("stall", after_bytes=300_000, count=1, delay_ms=600_000)]
            sink = BufferSink(len(DATA))
            fetch = asyncio.create_task(origin.fetch(version, ByteRange(0, len(DATA)), sink))
            await asyncio.to_thread(sink.first.wait)
            fetch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetch
            assert sink.buffer[: sink.count_bytes] == DATA[: sink.count_bytes]
            sink.free()
            await fetched(origin, 0, 1000, version)

    run(main())


def test_a_fetch_that_nobody_wants_any_more_stops(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, max_gets=1, read_timeout_ms=600_000) as (origin, _):
            version = await origin.head(NAME)
            dev.faults = [Fault("stall", after_bytes=300_000, count=1, delay_ms=600_000)]
            sink = BufferSink(len(DATA))
            fetch = asyncio.create_task(origin.fetch(version, ByteRange(0, len(DATA)), sink))
            await asyncio.to_thread(sink.first.wait)
            sink.cancelled = True
            with pytest.raises(OriginError, match="nobody wants"):
                await fetch
            sink.free()
            await fetched(origin, 0, 1000, version)

    run(main())


def test_closing_ends_fetches_under_way_and_waiting(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, max_gets=1, read_timeout_ms=600_000) as (origin, _):
            version = await origin.head(NAME)
            dev.faults = [Fault("stall", after_bytes=300_000, delay_ms=600_000)]
            sinks = [BufferSink(len(DATA)) for _ in range(3)]
            whole = ByteRange(0, len(DATA))
            fetches = [asyncio.create_task(origin.fetch(version, whole, sink)) for sink in sinks]
            await asyncio.to_thread(sinks[0].first.wait)
            await origin.close()
            for fetch, sink in zip(fetches, sinks, strict=True):
                with pytest.raises(OriginError, match="closed"):
                    await fetch
                sink.free()
            with pytest.raises(OriginError, match="closed"):
                await origin.head(NAME)

    run(main())


def test_beyond_the_waiting_limit_it_is_overloaded_at_once(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, max_gets=1, max_waiting=1, read_timeout_ms=600_000) as (
            origin,
            _,
        ):
            version = await origin.head(NAME)
            dev.faults = [Fault("stall", after_bytes=300_000, count=1, delay_ms=600_000)]
            sink, waiting = BufferSink(len(DATA)), BufferSink(1000)
            first = asyncio.create_task(origin.fetch(version, ByteRange(0, len(DATA)), sink))
            await asyncio.to_thread(sink.first.wait)
            second = asyncio.create_task(origin.fetch(version, ByteRange(0, 1000), waiting))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="max_waiting"):
                await fetched(origin, 0, 1000, version)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await second
            assert waiting.buffer == DATA[:1000]

    run(main())


def test_a_fetch_cancelled_while_it_waits_never_starts(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, max_gets=1, read_timeout_ms=600_000) as (origin, _):
            version = await origin.head(NAME)
            dev.faults = [Fault("stall", after_bytes=300_000, count=1, delay_ms=600_000)]
            sink, waiting = BufferSink(len(DATA)), BufferSink(1000)
            first = asyncio.create_task(origin.fetch(version, ByteRange(0, len(DATA)), sink))
            await asyncio.to_thread(sink.first.wait)
            second = asyncio.create_task(origin.fetch(version, ByteRange(0, 1000), waiting))
            await asyncio.sleep(0)
            for task in (second, first):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            waiting.free()
            assert [request.method for request in dev.requests] == ["HEAD", "GET"]

    run(main())


def test_never_more_gets_at_a_time_than_allowed() -> None:
    together = threading.Barrier(3)
    lock = threading.Lock()
    active = peak = 0

    def script(request: Request, connected: socket.socket) -> bool:
        nonlocal active, peak
        with lock:
            active += 1
            peak = max(peak, active)
        together.wait()
        with lock:
            active -= 1
        return answer_right(request, connected)

    async def main(url: str) -> None:
        async with opened(url, max_gets=3) as (origin, _):
            await asyncio.gather(*[fetched(origin, at, at + 1000) for at in range(0, 12_000, 1000)])

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert len(server.requests) == 12
        assert len({request.connection for request in server.requests}) == 3
    assert peak == 3


def test_connections_are_used_again() -> None:
    async def main(url: str) -> None:
        async with opened(url) as (origin, metrics):
            for at in range(0, 5000, 1000):
                await fetched(origin, at, at + 1000)
            assert value(metrics, "requests", op="get", code="206") == 5
            assert value(metrics, "bytes") == 5000

    with ScriptedServer(answer_right) as server:
        run(main(server.url))
        assert {request.connection for request in server.requests} == {1}


@pytest.mark.parametrize("reset", [False, True])
def test_a_stale_connection_is_replaced_for_free(reset: bool) -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        if request.number == 1:  # the second request on the first connection: hang up, say nothing
            if reset:
                linger = b"\1\0\0\0\0\0\0\0"
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        return answer_right(request, connected)

    async def main(url: str) -> None:
        async with opened(url, attempts=1) as (origin, metrics):
            await fetched(origin, 0, 1000)
            await fetched(origin, 1000, 2000)
            assert value(metrics, "retries") == 0

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert [request.connection for request in server.requests] == [1, 1, 2]


def test_bytes_behind_an_answer_never_become_the_next_one() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        right = head_206(request) + DATA[request.start : request.end]
        evil = head_206(Request("", "", 0, 0, 1000, 2000, "")) + b"!" * 1000
        connected.sendall(right + evil if request.number == 0 else right)
        return True

    async def main(url: str) -> None:
        async with opened(url, attempts=1) as (origin, _):
            await fetched(origin, 0, 1000)
            await fetched(origin, 1000, 2000)

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert [request.connection for request in server.requests] == [1, 2]


def test_a_chunked_answer_is_taken_apart() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        head = head_206(request).replace(b"Content-Length: ", b"X-Was: ")
        body = b""
        for at in range(request.start, request.end, 70_000):
            part = DATA[at : min(at + 70_000, request.end)]
            body += b"%x;extension=1\r\n%s\r\n" % (len(part), part)
        connected.sendall(head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n")
        connected.sendall(body[:300_000] if request.number == 0 else body + b"0\r\n\r\n")
        return False

    async def main(url: str) -> None:
        async with opened(url, attempts=2) as (origin, metrics):
            await fetched(origin)
            assert value(metrics, "bytes") == len(DATA)

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert server.requests[1].start > 200_000


GARBAGE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
    "no status": b"HTTP/1.1 two hundred\r\n\r\n",
    "endless head": b"HTTP/1.1 206 OK\r\n" + b"X: y\r\n" * 50_000,
    "header without colon": b"HTTP/1.1 206 OK\r\nnonsense\r\n\r\n",
    "negative length": b'HTTP/1.1 206 OK\r\nETag: "the-etag"\r\nContent-Length: -5\r\n\r\n',
    "two lengths": b'HTTP/1.1 206 OK\r\nETag: "the-etag"\r\nContent-Length: 1000\r\n'
    b"Content-Range: bytes 0-999/700001\r\nContent-Length: 1000\r\n\r\n" + DATA[:1000],
    "no length": b'HTTP/1.1 206 OK\r\nETag: "the-etag"\r\n'
    b"Content-Range: bytes 0-999/700001\r\n\r\n" + DATA[:1000],
    "nothing": b"",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_an_origin_error(garbage: bytes) -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        connected.sendall(garbage)
        return False

    async def main(url: str) -> None:
        async with opened(url, attempts=2) as (origin, _):
            with pytest.raises(OriginError, match=str(NAME)):
                await fetched(origin, 0, 1000)

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert len(server.requests) == 2


def test_a_stored_content_encoding_is_no_obstacle() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        extra = "Content-Encoding: gzip\r\n"
        connected.sendall(head_206(request, extra) + DATA[request.start : request.end])
        return True

    async def main(url: str) -> None:
        async with opened(url) as (origin, _):
            await fetched(origin, 5, 1000)

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert "accept-encoding: identity" in server.requests[0].head.lower()


def test_nobody_listening_is_an_error_that_names_the_endpoint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def main() -> None:
        async with opened(f"http://127.0.0.1:{port}", attempts=2) as (origin, metrics):
            with pytest.raises(OriginError, match=f"127.0.0.1:{port}.*refused"):
                await fetched(origin, 0, 1000)
            with pytest.raises(OriginError, match=f"127.0.0.1:{port}"):
                await origin.head(NAME)
            assert value(metrics, "requests", op="get", code="error") == 2
            assert value(metrics, "requests", op="head", code="error") == 2

    run(main())


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


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that signs itself, and a server's context with it."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-subj", "/CN=origin of a test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def test_https_with_an_authority_from_aws_ca_bundle(
    authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = authority
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))

    def script(request: Request, connected: socket.socket) -> bool:
        if request.number == 2:  # a TLS connection that is cut
            connected.sendall(head_206(request) + DATA[request.start : request.end][:300_000])
            return False
        return answer_right(request, connected)

    async def main(url: str) -> None:
        async with opened(url) as (origin, metrics):
            version = await origin.head(NAME)
            await fetched(origin, 10, 20, version)
            await fetched(origin, 0, len(DATA), version)
            await fetched(origin, len(DATA) - 1, len(DATA), version)
            assert value(metrics, "retries") == 1

    with ScriptedServer(script, context) as server:
        run(main(server.url))
        ranges = [(request.start, request.connection) for request in server.requests[1:]]
        assert ranges == [(10, 2), (0, 2), (300_000, 3), (len(DATA) - 1, 3)]


def test_cancelling_a_fetch_over_tls_lands_no_cipher_text(
    authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = authority
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    done = threading.Event()

    def script(request: Request, connected: socket.socket) -> bool:
        connected.sendall(head_206(request) + DATA[request.start : request.end][:300_000])
        done.wait()
        return False

    async def main(url: str) -> None:
        async with opened(url, read_timeout_ms=600_000) as (origin, _):
            sink = BufferSink(len(DATA))
            fetch = asyncio.create_task(origin.fetch(VERSION, ByteRange(0, len(DATA)), sink))
            await asyncio.to_thread(sink.first.wait)
            fetch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetch
            assert sink.buffer[: sink.count_bytes] == DATA[: sink.count_bytes]
            assert not any(sink.buffer[300_000:])
            sink.free()

    with ScriptedServer(script, context) as server:
        run(main(server.url))
        done.set()


def test_https_with_an_unknown_authority_is_refused(
    authority: tuple[Path, ssl.SSLContext],
) -> None:
    async def main(url: str) -> None:
        async with opened(url, attempts=1) as (origin, _):
            with pytest.raises(OriginError, match="certificate verify failed"):
                await fetched(origin, 0, 1000)

    with ScriptedServer(answer_right, authority[1]) as server:
        run(main(server.url))
