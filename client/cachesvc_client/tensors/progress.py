"""A bar that shows how far a checkpoint has come; silent off a terminal, and without rich."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

Tell = Callable[[int], None]


@contextmanager
def bar(what: str, total_bytes: int, wanted: bool | None) -> Iterator[Tell]:
    """A callable that is told of bytes as they come, from any thread.

    wanted: None where standard error is a terminal. Raises ImportError if one is wanted and rich is
    not there.
    """
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield _silent
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError as error:
        if wanted:
            raise ImportError(
                "a progress bar needs rich: pip install '.[tensors]' in a clone"
            ) from error
        yield _silent
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    speed = TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, *speed, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total_bytes)
        counting, come_bytes = Lock(), 0

        def tell(count_bytes: int) -> None:
            nonlocal come_bytes
            with counting:  # what comes beside or again is not progress
                come_bytes = min(come_bytes + count_bytes, total_bytes)
                progress.update(task, completed=come_bytes)

        yield tell


def _silent(_count_bytes: int) -> None:
    """Nobody is watching."""
