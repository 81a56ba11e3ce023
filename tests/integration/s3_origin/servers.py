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
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.metrics import Metrics
from cachesvc.origin.budget import RetryBudget
from cachesvc.origin.probe import Heard
from cachesvc.origin.s3 import S3Origin, S3Settings
from tests.sinks import BufferSink

NAME = ObjectName("bucket", "key")
DATA = bytes(i * 7 % 251 for i in range(700_001))
ETAG = '"the-etag"'
VERSION = ObjectVersion(NAME, ETAG, len(DATA))


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


@asynccontextmanager
async def opened(
    url: str | None, budget: RetryBudget | None = None, heard: Heard | None = None, **settings: Any
) -> AsyncIterator[tuple[S3Origin, Metrics]]:
    metrics = Metrics()
    origin = S3Origin(S3Settings(endpoint_url=url, **settings), metrics, budget, heard)
    try:
        yield origin, metrics
    finally:
        await origin.close()


async def fetched(
    origin: S3Origin, start: int = 0, end: int = len(DATA), version: ObjectVersion = VERSION
) -> BufferSink:
    """Fetch, and check every byte and that the buffer is free afterwards: the sink, emptied."""
    sink = BufferSink(end - start)
    try:
        await origin.fetch(version, ByteRange(start, end), sink)
        assert sink.count_bytes == end - start
        assert sink.buffer == DATA[start:end]
        return sink
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
