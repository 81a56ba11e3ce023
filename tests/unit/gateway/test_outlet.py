"""The threads that send: whoever gives one work waits for its end, whatever happens to him."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cachesvc.gateway.outlet import SendThreads
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
