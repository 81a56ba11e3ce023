"""The threads on which blocking work runs, for whoever must not wait for it.

Rules: they belong to one process. In a forked child those of the parent are parked (forks.py), and
the child's own are made when they are first needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from cachesvc_client import forks

T = TypeVar("T")

MAX_COUNT = 16


class Threads:
    """At most MAX_COUNT threads of one process, made as needed."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._generation = forks.generation

    async def run(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What `work` returns or raises; whoever is cancelled waits no longer for it."""
        return await asyncio.wrap_future(self._submit(work, *args, **kwargs))

    async def finish(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What `work` returns or raises; whoever is cancelled is so when it is over, and done."""
        over = asyncio.wrap_future(self._submit(work, *args, **kwargs))
        cancelled: asyncio.CancelledError | None = None
        while not over.done():
            try:
                await asyncio.wait([over])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            over.exception()  # has been seen
            raise cancelled
        return over.result()

    def each(self, work: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
        """What `work` returns for each item, in order; raises the first error, all being over.

        Not for use on these threads themselves.
        """
        wanted = list(items)
        if len(wanted) == 1:
            return [work(wanted[0])]
        futures = [self._submit(work, one) for one in wanted]
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error
        return [future.result() for future in futures]

    def _submit(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        with forks.lock:
            if self._pool is None or self._generation != forks.generation:
                self._pool = ThreadPoolExecutor(MAX_COUNT, "cachesvc-wait")
                self._generation = forks.generation
                forks.mine(self._pool)
            return self._pool.submit(work, *args, **kwargs)
