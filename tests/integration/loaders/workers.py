"""Eight processes that read: one at a time, or all of them the same at the same moment."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, Self

from tests.integration.loaders.loader import Read, Where

COUNT = 8
PATIENCE_S = 100
_together: Any = None  # the barrier, in a worker


class Workers:
    """A context manager. The processes are spawned, as those of loaders are, and stay."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(COUNT, spawn, _begin, (spawn.Barrier(COUNT),))

    def read(self, read: Read, where: Where, folder: str) -> Any:
        """What one of them reads."""
        return self._pool.submit(read, where, folder).result(PATIENCE_S)

    def read_all(self, read: Read, where: Where, folder: str, needs: Sequence[str]) -> list[Any]:
        """What each of them reads, all beginning once the last one has imported what it needs."""
        work = [self._pool.submit(_read_together, read, where, folder, needs) for _ in range(COUNT)]
        return [one.result(PATIENCE_S) for one in work]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


def _begin(together: Any) -> None:
    """It ends at once when its time comes: not every library ends well (threads of pyarrow that let
    go of Python files abort), and none has anything to save.
    """
    global _together
    _together = together
    Finalize(None, os._exit, (0,), exitpriority=0)


def _read_together(read: Read, where: Where, folder: str, needs: Sequence[str]) -> Any:
    for name in needs:
        import_module(name)
    _together.wait(PATIENCE_S)
    return read(where, folder)
