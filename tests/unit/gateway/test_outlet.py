"""The threads that send: whoever gives one work waits for its end, whatever happens to him."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cachesvc.answer import Segment
from cachesvc.core.types import Source
from cachesvc.gateway import outlet
from cachesvc.gateway.outlet import Outlet, SendThreads
from tests.support import soon


@pytest.mark.parametrize("cancel_count", [1, 2, 5])
def test_who_is_cancelled_waits_until_the_thread_is_done(cancel_count: int) -> None:
    begun, go_on = threading.Event(), threading.Event()
    seen: list[str] = []

    def work() -> tuple[int, None]:
        begun.set()
        go_on.wait()
        seen.append("sent")
        return 7, None

    async def sender(threads: SendThreads) -> None:
        try:
            await threads.run(work)
        finally:
            seen.append("closed")

    async def body() -> None:
        task = asyncio.create_task(sender(threads))
        await soon(begun.is_set, "the thread works")
        for _ in range(cancel_count):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert seen == []
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    threads = SendThreads(1)
    try:
        asyncio.run(asyncio.wait_for(body(), 30))
    finally:
        go_on.set()
        threads.close()
    assert seen == ["sent", "closed"]


def test_what_the_work_returns_or_raises_is_given_on() -> None:
    async def body() -> None:
        assert await threads.run(lambda: (7, None)) == (7, None)
        with pytest.raises(ConnectionResetError):
            await threads.run(raises)

    def raises() -> tuple[int, None]:
        raise ConnectionResetError

    threads = SendThreads(1)
    asyncio.run(body())
    threads.close()


@pytest.mark.parametrize("crowded", [False, True])
def test_nobody_waits_for_a_full_socket_while_others_wait_for_the_thread(
    monkeypatch: pytest.MonkeyPatch, crowded: bool
) -> None:
    waits: list[int] = []

    class Poll:
        def register(self, *_: Any) -> None:
            """Whatever is waited for."""

        def poll(self, ms: int) -> list[int]:
            waits.append(ms)
            return []

    monkeypatch.setattr(outlet, "select", SimpleNamespace(poll=Poll, POLLOUT=4))
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    transport = SimpleNamespace(get_extra_info=lambda _: ours)
    monkeypatch.setattr(socket.socket, "setsockopt", lambda *_: None)  # it is not TCP
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait()

    threads = SendThreads(1)
    way_out = Outlet(cast(Any, transport), threads, 65536, lambda *_: None)
    large = Segment(0, 8 << 20, Source.DISK, parts=[memoryview(bytes(8 << 20))])
    try:
        threads.submit(hold)
        begun.wait()
        if crowded:
            threads.submit(go_on.wait)
        position, stopped = way_out.push(large, 0)
        assert 0 < position < 8 << 20
        assert stopped is not None
        assert bool(waits) != crowded
    finally:
        go_on.set()
        threads.close()
        way_out.close()
        ours.close()
        theirs.close()
