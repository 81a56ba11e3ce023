"""Drivers of generators that yield effects: blocking, awaiting, and several at once on threads.

Rules: no thread exists before a read needs two requests at a time. The calling thread works too and
takes whatever no helper has begun, so that a busy pool delays a read and never stops it; a read
returns, or raises, only when nobody writes into its target any more. So what a signal's handler
raises (Ctrl-C) is held back meanwhile (interrupts.py); then nobody begins another request, and
those under way are waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Condition, Lock
from typing import Any, TypeVar

from cachesvc.core.errors import CacheError
from cachesvc_client.effects import Effect, Steps
from cachesvc_client.interrupts import GivenUp, Held, Waiter

T = TypeVar("T")
E = TypeVar("E")


def run(steps: Generator[E, Any, T], perform: Callable[[E], Any]) -> T:
    """Drive a generator to its end: its value, or what it raises. A CacheError of `perform` is
    thrown into it; anything else ends it.
    """
    try:
        effect = next(steps)
        while True:
            try:
                result = perform(effect)
            except CacheError as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()


async def run_awaiting(steps: Generator[E, Any, T], perform: Callable[[E], Awaitable[Any]]) -> T:
    """As `run`, where performing an effect is awaited."""
    try:
        effect = next(steps)
        while True:
            try:
                result = await perform(effect)
            except CacheError as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()


class Crew:
    """At most `size` helping threads, made when they are first needed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()

    def together(self, steps: Sequence[Steps[Any]], perform: Callable[[Effect], Any]) -> list[Any]:
        """Run all; one outcome each, in order: the value or the CacheError.

        Raises what is no CacheError, of whichever piece, and what a signal's handler raised.
        """
        job = _Job(steps, perform)
        with Held(job.leave):
            try:
                for _ in range(min(len(steps) - 1, self._size)):
                    if not self._help(job):
                        break
                with suppress(GivenUp):  # why is told below
                    job.work()
            except BaseException:
                job.leave()
                raise
            finally:
                job.wait()
        if job.defect is not None:
            raise job.defect
        job.check()
        return job.outcomes

    def close(self) -> None:
        """Helpers end after what they are doing."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def _help(self, job: _Job) -> bool:
        """Whether a helper could be had: not at the end of the interpreter, or without threads."""
        try:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self._size, "cachesvc-read")
                self._pool.submit(job.help)
        except RuntimeError:
            return False
        return True


class _Job(Waiter):
    """Pieces of work, each taken once by whoever comes first. Only helpers, in whose threads no
    signal's handler runs, are counted.

    defect: what broke a helper first, and is no CacheError. Once left, nothing more is begun, nor a
    further request of what has begun.
    """

    def __init__(self, steps: Sequence[Steps[Any]], perform: Callable[[Effect], Any]) -> None:
        super().__init__()
        self.outcomes: list[Any] = [None] * len(steps)
        self.defect: BaseException | None = None
        self._steps = steps
        self._perform = perform
        self._left = iter(range(len(steps)))
        self._taking = Lock()
        self._helpers = Condition()
        self._helping_count = 0
        self._over = False

    def work(self) -> None:
        """Do what nobody has begun, until nothing is left. Raises what is no CacheError."""
        while (index := self._take()) is not None:
            try:
                self.outcomes[index] = run(self._steps[index], self._perform_for_caller)
            except CacheError as error:
                self.outcomes[index] = error

    def help(self) -> None:
        """The same, on another thread. Too late, it does nothing."""
        with self._helpers:
            if self._over:
                return
            self._helping_count += 1
        try:
            with suppress(GivenUp):
                self.work()
        except BaseException as defect:
            with self._helpers:
                if self.defect is None:
                    self.defect = defect
            self.leave()
        finally:
            with self._helpers:
                self._helping_count -= 1
                self._helpers.notify_all()

    def wait(self) -> None:
        """Until no helper works, and none will."""
        with self._helpers:
            self._over = True
            while self._helping_count:
                self._helpers.wait()

    def _take(self) -> int | None:
        with self._taking:
            return None if self.gone else next(self._left, None)

    def _perform_for_caller(self, effect: Effect) -> Any:
        self.check()
        return self._perform(effect)
