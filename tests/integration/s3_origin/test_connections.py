"""Connections to an origin: used again while they are sound; garbage on them is an error."""

from __future__ import annotations

import socket

import pytest

from cachesvc.core.errors import OriginError
from tests.integration.s3_origin.servers import (
    DATA,
    NAME,
    Request,
    ScriptedServer,
    answer_right,
    fetched,
    head_206,
    opened,
    run,
    value,
)


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


@pytest.mark.parametrize("behind", [b"", b"\r", b"\r\n", b"more of it"])
def test_a_chunked_answer_is_whole_with_its_last_byte(behind: bytes) -> None:
    """Whatever comes of the coding behind it; the connection is not used again."""

    def script(request: Request, connected: socket.socket) -> bool:
        head = head_206(request).replace(b"Content-Length: ", b"X-Was: ")
        body = DATA[request.start : request.end]
        connected.sendall(head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n")
        connected.sendall(b"%x\r\n%s%s" % (len(body), body, behind))
        return False

    async def main(url: str) -> None:
        async with opened(url) as (origin, metrics):
            for _ in range(2):
                await fetched(origin)
            assert value(metrics, "retries") == 0

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert [request.connection for request in server.requests] == [1, 2]


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
