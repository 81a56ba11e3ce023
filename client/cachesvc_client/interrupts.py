"""What signal handlers raise (Ctrl-C, an alarm), held back while it must not be raised.

Rules: handlers run at once, as ever; only what they raise waits until the last `Held` is left. The
main thread alone runs handlers, so that elsewhere there is nothing to do. No handler is known here
before it is needed, and what the program sets meanwhile is left alone. A signal that restarts
system calls (signal.siginterrupt) goes on doing so.

Story: what a handler raises can come between any two bytecodes, so that no `try` catches them all:
one signal more hits the `except` itself. So it is the handlers that must not raise. `Held` puts a
keeper in place of each; whatever happens before that is done happens before anything has begun.
Keepers that an interruption has left behind do nothing but call their handlers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import FrameType, TracebackType
from typing import Any

try:  # signal's own makes enums: 44 us for all signals, where this takes 2
    from _signal import getsignal  # type: ignore[import-not-found]
except ImportError:
    from signal import getsignal

_FLAGS_OFFSET = 136  # of sa_flags in struct sigaction, behind the handler and 1,024 bits of mask
_ACTION_BYTES = 256  # more than any struct sigaction has
_SA_RESTART = 0x10000000

_innermost: Held | None = None  # of the main thread


class GivenUp(Exception):
    """Nobody waits any more for what this was raised in. No CacheError: nobody tries it again, and
    no node is to blame.
    """


class Waiter:
    """Who waits for what a `Held` is around. Without a lock: a handler can come at any moment."""

    def __init__(self) -> None:
        self.gone = False

    def leave(self) -> None:
        """Wait no longer."""
        self.gone = True

    def check(self) -> None:
        """Raises GivenUp if nobody waits any more."""
        if self.gone:
            raise GivenUp("nobody waits for it any more")


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
                _set(number, _Keeper(handler))


def _take_keepers() -> None:
    for number in range(1, signal.NSIG):
        keeper = getsignal(number)
        if isinstance(keeper, _Keeper):
            _set(number, keeper.handler)


def _set(number: int, handler: Callable[[int, FrameType | None], Any]) -> None:
    """Another handler, and nothing else: signal.signal alone clears SA_RESTART."""
    restarts = _restarts(number)
    try:
        signal.signal(number, handler)
    finally:
        if restarts:
            signal.siginterrupt(number, False)


def _restarts(number: int) -> bool:
    """Whether system calls go on after the signal; False where the layout is not known."""
    read = _sigaction()
    if read is None:
        return False
    action = bytearray(_ACTION_BYTES)
    read(number, action)
    flags = int.from_bytes(action[_FLAGS_OFFSET : _FLAGS_OFFSET + 4], sys.byteorder)
    return bool(flags & _SA_RESTART)


@cache
def _sigaction() -> Callable[[int, bytearray], None] | None:
    """C's sigaction, as far as it reads."""
    if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
        return None
    try:
        import ctypes

        call = ctypes.CDLL(None).sigaction
    except (ImportError, OSError, AttributeError):
        return None
    buffer_of = (ctypes.c_char * _ACTION_BYTES).from_buffer
    return lambda number, action: call(number, None, buffer_of(action))
