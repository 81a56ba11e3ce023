"""An origin that sends without ever answering is broken after a while, however busily it sends.

Story: only silence was limited. Endless `100 Continue`, a head or an error that came byte by byte,
a body without a strong ETag that dripped, each held a GET for good; 32 of them held the node. And
an origin that sent 70 kB and stalled, again and again, was asked again for many minutes.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from cachesvc.core.errors import OriginError
from cachesvc.origin import bypass
from tests.integration.s3_origin.servers import (
    DATA,
    ETAG,
    NAME,
    Request,
    ScriptedServer,
    fetched,
    head_206,
    opened,
    run,
)

TICK_S = 0.02
SLOWNESS = threading.Event()  # the origin's own: never set


def _for_ever(piece: bytes, pause_s: float) -> Callable[[Request, socket.socket], bool]:
    def script(_request: Request, connected: socket.socket) -> bool:
        connected.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" if piece == b"" else b"")
        while True:
            connected.sendall(piece or b"HTTP/1.1 100 Continue\r\n\r\n")
            SLOWNESS.wait(pause_s)

    return script


def _dripped_error(_request: Request, connected: socket.socket) -> bool:
    connected.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 16000\r\n\r\n")
    while True:
        connected.sendall(b"x")
        SLOWNESS.wait(TICK_S)


@pytest.mark.parametrize(
    "script",
    [_for_ever(b"", 0), _for_ever(b"", TICK_S), _for_ever(b"H", TICK_S), _dripped_error],
    ids=["fast 100", "slow 100", "head by bytes", "error by bytes"],
)
def test_a_dripping_answer_is_broken(script: Callable[[Request, socket.socket], bool]) -> None:
    async def main() -> None:
        with ScriptedServer(script) as server:
            async with opened(server.url, read_timeout_ms=200, attempts=2) as (origin, _):
                with pytest.raises(OriginError):
                    await fetched(origin)
                assert len(server.requests) == 2

    run(main())


def test_an_uncached_body_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bypass, "PATIENCE_S", 0.1)

    def script(request: Request, connected: socket.socket) -> bool:
        connected.sendall(head_206(request).replace(ETAG.encode(), b'W/"weak"'))
        while True:
            connected.sendall(b"x")
            SLOWNESS.wait(TICK_S)

    async def main() -> None:
        with ScriptedServer(script) as server:
            async with opened(server.url) as (origin, _), origin.stream(NAME, 0, 100_000) as stream:
                with pytest.raises(OriginError, match="fewer than 100000 bytes/s"):
                    async for _ in stream.chunks:
                        pass

    run(main())


def test_an_origin_that_stalls_after_every_little_progress_is_given_up() -> None:
    stalls = 0

    def script(request: Request, connected: socket.socket) -> bool:
        nonlocal stalls
        end = request.start + 70_000
        connected.sendall(head_206(request) + DATA[request.start : end])
        stalls += 1
        connected.recv(1)  # until the node has had enough
        return False

    async def main() -> None:
        with ScriptedServer(script) as server:
            async with opened(server.url, read_timeout_ms=800, patience_ms=1) as (origin, _):
                with pytest.raises(OriginError, match="no bytes for 800 ms"):
                    await fetched(origin)

    run(main())
    assert stalls == 1
