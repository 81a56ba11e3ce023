"""What signal handlers raise (Ctrl-C, an alarm), held back while it must not be raised.

Rules: handlers run at once, as ever; only what they raise waits until the last `Held` is left. The
main thread alone runs handlers, so that elsewhere there is nothing to do. No handler is known here
before it is needed, and what the program sets meanwhile is left alone.

Story: what a handler raises can come between any two bytecodes, so that no `try` catches them all:
one signal more hits the `except` itself. So it is the handlers that must not raise. `Held` puts a
keeper in place of each; whatever happens before that is done happens before anything has begun.
Keepers that an interruption has left behind do nothing but call their handlers.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

try:  # signal's own makes enums: 44 us for all signals, where this takes 2
    from _signal import getsignal  # type: ignore[import-not-found]
except ImportError:
    from signal import getsignal

_innermost: Held | None = None  # of the main thread


class Held:
    """A context within which no handler's exception is raised; at its end, the last one is.

    abandon: called as soon as there is one, so that the end comes soon; must not raise.
    """

    def __init__(self, abandon: Callable[[], None]) -> None:
        self.abandon = abandon
        self.error: BaseException | None = None
        self.outer: Held | None = None
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        global _innermost  # noqa: PLW0603 - there is one main thread
        if not self._main:
            return
        self.outer = _innermost
        if self.outer is None:
            _put_keepers()
        _innermost = self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        global _innermost  # noqa: PLW0603 - there is one main thread
        if not self._main:
            return
        _innermost = self.outer
        if self.outer is None:
            _take_keepers()
            if self.error is not None:
                raise self.error


class _Keeper:
    """A handler, whose exceptions wait."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        held = _innermost
        if held is None:
            self.handler(number, frame)
            return
        try:
            self.handler(number, frame)
        except BaseException as error:
            while True:
                held.abandon()
                if held.outer is None:
                    break
                held = held.outer
            held.error = error


def _put_keepers() -> None:
    for number in range(1, signal.NSIG):
        handler = getsignal(number)
        if callable(handler) and not isinstance(handler, _Keeper):
            with suppress(ValueError):  # another interpreter than the first
                signal.signal(number, _Keeper(handler))


def _take_keepers() -> None:
    for number in range(1, signal.NSIG):
        keeper = getsignal(number)
        if isinstance(keeper, _Keeper):
            signal.signal(number, keeper.handler)
