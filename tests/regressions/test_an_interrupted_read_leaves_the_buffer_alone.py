"""A read that a signal interrupts raises only when nobody writes into its buffer any more.

Story: while the calling thread waited for its helpers, what a signal's handler raised (Ctrl-C, an
alarm) left the read at once, and a helper went on writing into a buffer that was the caller's
again: a later read into it, right in itself, held wrong bytes.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from cachesvc_client.drive import Crew
from cachesvc_client.effects import Effect, Refresh, Steps


class Alarm(Exception):
    """What the handler raises."""


@pytest.fixture
def handled() -> Iterator[threading.Semaphore]:
    """Counts the alarms that were raised in the main thread."""
    count = threading.Semaphore(0)

    def handle(_number: int, _frame: FrameType | None) -> None:
        count.release()
        raise Alarm

    before = signal.signal(signal.SIGALRM, handle)
    yield count
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("alarms", [1, 2, 3])
def test_an_interrupted_read_waits_for_its_helpers(
    handled: threading.Semaphore, alarms: int
) -> None:
    main = threading.get_ident()
    helper_began = threading.Event()
    done: list[str] = []

    def perform(_effect: Effect) -> Any:
        if threading.get_ident() == main:
            helper_began.wait()
            return None
        if done:
            done.append("another request")
            return None
        helper_began.set()
        for _ in range(alarms):  # each into a waiting caller
            while sys._current_frames()[main].f_code.co_name != "wait":
                threading.Event().wait(0.001)
            signal.pthread_kill(main, signal.SIGALRM)
            handled.acquire()
        done.append("written")
        return None

    def steps() -> Steps[None]:
        yield Refresh()
        yield Refresh()

    crew = Crew(1)
    try:
        with pytest.raises(Alarm):
            crew.together([steps(), steps()], perform)
        assert done == ["written"]
    finally:
        crew.close()


def test_a_defect_of_a_helper_is_raised() -> None:
    main = threading.get_ident()
    began = threading.Event()

    def perform(_effect: Effect) -> Any:
        if threading.get_ident() == main:
            began.wait()
            return None
        began.set()
        raise ZeroDivisionError

    def steps() -> Steps[None]:
        yield Refresh()

    crew = Crew(1)
    try:
        with pytest.raises(ZeroDivisionError):
            crew.together([steps(), steps()], perform)
    finally:
        crew.close()
