"""An event loop on virtual time: nothing sleeps, the clock jumps to the next timer.

Rules: `time()` moves only when no callback is ready; then it is exactly the time of the earliest
timer. No file, socket or thread belongs to the loop, so two runs of the same callbacks are the same
run. A loop with nothing left to do while somebody still waits has hung, and says so.

Story: `OWNER` names the process that a task belongs to (a node of the simulated cluster, or nobody
for clients). Tasks, callbacks and timers inherit it as context does; when a node is killed, all its
tasks are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Protocol


class Hang(Exception):
    """Somebody waits for what will never come."""


class Process(Protocol):
    """Whoever tasks can belong to."""

    @property
    def tasks(self) -> dict[asyncio.Task[Any], None]: ...


OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)


class _Jump:
    """Stands where a loop has its selector."""

    def __init__(self) -> None:
        self.now = 1000.0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Hang("nothing is left to happen, and somebody waits")
        if timeout > 0:
            self.now += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """See above. The clock begins at 1000 s."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Jump()
        self.set_task_factory(_owned_task)

    def time(self) -> float:
        return self._selector.now

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""


def _owned_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **kwargs: Any,
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
    owner = OWNER.get()
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(lambda task: owner.tasks.pop(task, None))
    return task
