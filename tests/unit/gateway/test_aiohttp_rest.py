"""What the gateway's connections read of aiohttp's own state, of the version that is installed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from aiohttp.web import BaseRequest, Response, Server
from aiohttp.web_protocol import RequestHandler

from cachesvc.gateway.connection import Connection
from tests.support import soon

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
Steps = Callable[[RequestHandler, socket.socket, asyncio.Event], Awaitable[None]]


@pytest.mark.parametrize(
    "name",
    ["_waiter", "_messages", "_close", "_force_close", "_next_keepalive_close_time", "_loop"],
)
def test_the_state_that_is_read_is_there(name: str) -> None:
    slots = {slot for one in RequestHandler.__mro__ for slot in getattr(one, "__slots__", ())}
    assert name in slots
    assert issubclass(Connection, RequestHandler)


def with_aiohttp(steps: Steps) -> None:
    """aiohttp's own protocol, a client's socket, and a handler that answers once it is let go."""

    async def body() -> None:
        go_on = asyncio.Event()

        async def handler(request: BaseRequest) -> Response:
            await request.read()
            await go_on.wait()
            return Response(body=b"done")

        web = Server(handler, access_log=None, keepalive_timeout=75.0)
        server = await asyncio.get_running_loop().create_server(web, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            await soon(lambda: bool(web.connections), "it is connected")
            await steps(web.connections[0], client, go_on)
        server.close()
        await web.shutdown(1.0)

    asyncio.run(asyncio.wait_for(body(), 30))


def waits(held: RequestHandler) -> bool:
    return held._waiter is not None and not held._waiter.done() and not held._messages


def test_it_waits_from_the_end_of_an_answer_to_the_next_request() -> None:
    async def steps(held: RequestHandler, client: socket.socket, go_on: asyncio.Event) -> None:
        await soon(lambda: waits(held), "it waits for the first request")
        client.sendall(HEAD)
        await soon(lambda: held._request_in_progress, "the head is there")
        assert not waits(held), "the body is not"
        client.sendall(b"body")
        for _ in range(20):
            await asyncio.sleep(0)
            assert not waits(held), "nothing is answered yet"
        client.sendall(HEAD + b"body")
        await soon(lambda: bool(held._messages), "the next one is queued")
        go_on.set()
        await soon(lambda: waits(held) and held._request_count == 2, "both are answered")
        assert held.transport is not None
        assert not held.transport.get_write_buffer_size(), "whole"
        assert not any((held._close, held._force_close))

    with_aiohttp(steps)


@pytest.mark.parametrize("late", [False, True])
def test_the_idle_are_hung_up_on_when_their_time_has_come(late: bool) -> None:
    async def steps(held: RequestHandler, client: socket.socket, go_on: asyncio.Event) -> None:
        await soon(lambda: waits(held), "it waits for the first request")
        held._next_keepalive_close_time = held._loop.time() + (60.0 if late else -1.0)
        held._process_keepalive()
        assert (held.transport is None) == (not late)

    with_aiohttp(steps)


def test_who_is_to_close_waits_no_more() -> None:
    async def steps(held: RequestHandler, client: socket.socket, go_on: asyncio.Event) -> None:
        await soon(lambda: waits(held), "it waits for the first request")
        held.close()
        assert held._close

    with_aiohttp(steps)
