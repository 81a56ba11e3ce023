"""The watch over an origin that has gone silent, so that nobody queues for it for minutes.

Story: while fills wait for their turn, the watch looks when one of those under way last made
progress. An origin that is slow keeps the queue moving, however long the queue is; once there has
been none for `limit_s`, those who wait are given up, and whoever comes then begins a new time.

Rules: event loop only; a timer runs only while fills wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watch:
    """Calls `give_up` when fills are `waiting` and none has made progress for `limit_s` seconds."""

    def __init__(
        self, limit_s: float, waiting: Callable[[], bool], give_up: Callable[[], None]
    ) -> None:
        self._limit_s = limit_s
        self._waiting = waiting
        self._give_up = give_up
        self._good_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def progress(self) -> None:
        """A fill has landed bytes, ended well, or is the first to fly."""
        self._good_at = asyncio.get_running_loop().time()

    def begin(self) -> None:
        """Watch from now on, for as long as fills wait."""
        if self._timer is None and self._waiting():
            self._set(asyncio.get_running_loop())

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_at(self._good_at + self._limit_s, self._look)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._waiting() and loop.time() >= self._good_at + self._limit_s:
            self._good_at = loop.time()
            self._give_up()
        self.begin()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
