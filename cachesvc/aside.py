"""Aside: where the event loop has work done that may wait for a disk or a socket.

Rule: work that was begun is done. Whoever is cancelled meanwhile never sees what it returns, so
that is closed as soon as it is there (`on_a_thread`), or waits for its end himself (`let_go`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar


class Closable(Protocol):
    """Something that holds something."""

    def close(self) -> None: ...


Held = TypeVar("Held", bound=Closable)


class Aside(Protocol):
    """What `work` returns, without keeping the loop waiting: `on_a_thread`, or the simulator's."""

    async def __call__(self, work: Callable[[], Held | None]) -> Held | None: ...


async def on_a_thread(work: Callable[[], Held | None]) -> Held | None:
    """What `work` returns, from one of asyncio's own threads."""
    held = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(held)
    except asyncio.CancelledError:
        held.add_done_callback(_let_go)
        raise


def _let_go(done: asyncio.Future[Held | None]) -> None:
    if not done.cancelled() and done.exception() is None and (held := done.result()) is not None:
        held.close()


async def let_go(work: Future[Any], stop: Callable[[], None]) -> None:
    """Until a thread has done its work, and touches nothing of the caller's any more; how it went,
    `work` tells. Cancelled meanwhile, it has the thread `stop`, and then raises all the same.
    """
    future = asyncio.wrap_future(work)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait({future})
    except asyncio.CancelledError:
        work.cancel()
        stop()
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({future})
        raise
