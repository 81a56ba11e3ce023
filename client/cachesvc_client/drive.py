"""The blocking driver of the read logic: runs generators, and several of them on threads.

Rules: no thread exists before a read needs two requests at a time. The calling thread works too and
takes whatever no helper has begun, so that a busy pool delays a read and never stops it; a read
returns, or raises, only when nobody writes into its target any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Condition, Lock
from typing import Any, TypeVar

from cachesvc.core.errors import CacheError
from cachesvc_client.effects import Effect, Steps

T = TypeVar("T")


def run(steps: Steps[T], perform: Callable[[Effect], Any]) -> T:
    """Drive a generator to its end: its value, or what it raises."""
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


class Crew:
    """At most `size` helping threads, made when they are first needed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()

    def together(
        self, steps: Sequence[Steps[Any]], run_one: Callable[[Steps[Any]], Any]
    ) -> list[Any]:
        """Run all; one outcome each, in order: the value or the CacheError."""
        job = _Job(steps, run_one)
        for _ in range(min(len(steps) - 1, self._size)):
            if not self._help(job):
                break
        try:
            job.work()
        finally:
            job.wait()
        if job.defect is not None:
            raise job.defect
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
                self._pool.submit(job.work)
        except RuntimeError:
            return False
        return True


class _Job:
    """Pieces of work, each taken once by whoever comes first."""

    def __init__(self, steps: Sequence[Steps[Any]], run_one: Callable[[Steps[Any]], Any]) -> None:
        self.outcomes: list[Any] = [None] * len(steps)
        self.defect: BaseException | None = None
        self._steps = steps
        self._run_one = run_one
        self._next = 0
        self._running = 0
        self._idle = Condition()

    def work(self) -> None:
        """Do what nobody has begun, until nothing is left."""
        while (index := self._take()) is not None:
            try:
                self.outcomes[index] = self._run_one(self._steps[index])
            except CacheError as error:
                self.outcomes[index] = error
            except BaseException as defect:
                self.defect = defect
            finally:
                self._done()

    def wait(self) -> None:
        """Until nobody works any more; what has not begun never will."""
        with self._idle:
            self._next = len(self._steps)
            while self._running:
                self._idle.wait()

    def _take(self) -> int | None:
        with self._idle:
            if self._next >= len(self._steps) or self.defect is not None:
                return None
            self._next += 1
            self._running += 1
            return self._next - 1

    def _done(self) -> None:
        with self._idle:
            self._running -= 1
            self._idle.notify_all()
