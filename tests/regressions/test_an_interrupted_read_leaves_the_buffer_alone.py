"""A read that a signal interrupts raises only when nobody writes into its buffer any more.

Story: while the calling thread waited for its helpers, what a signal's handler raised (Ctrl-C, an
alarm) left the read at once, and a helper went on writing into a buffer that was the caller's
again: a later read into it, right in itself, held wrong bytes. Later the waiting began again after
every exception, in Python, which has always a bytecode to spare for one signal more.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from cachesvc_client import drive
from cachesvc_client.drive import Crew
from cachesvc_client.effects import Effect, Refresh, Steps

from tests.support import until


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
            while not handled.acquire(timeout=0.05):  # it came just before the wait, not into it
                signal.pthread_kill(main, signal.SIGALRM)
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


SEED = 4
ROUNDS = 300
MAX_ALARMS = 60


class Barrage:
    """Alarms a few bytecodes apart, which raise wherever they find the main thread in a Crew."""

    def __init__(self) -> None:
        print(f"seed {SEED}")
        self.alarm_count = 0
        self._rng = random.Random(SEED)
        self._enough = 0

    def handle(self, _number: int, frame: FrameType | None) -> None:
        self.alarm_count += 1
        while frame is not None and frame.f_code.co_filename != drive.__file__:
            frame = frame.f_back
        if self.alarm_count < self._enough:
            signal.setitimer(signal.ITIMER_REAL, self._rng.uniform(1e-6, 30e-6))
        if frame is not None:
            raise Alarm

    def fire(self) -> None:
        """On a helper: some, until the last has hit the main thread."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        self._enough = self.alarm_count + self._rng.randint(1, MAX_ALARMS)
        until(self._hit_enough, "alarms hit the main thread")

    def _hit_enough(self) -> bool:
        if self.alarm_count >= self._enough:
            return True
        signal.setitimer(signal.ITIMER_REAL, 1e-6)  # also for one that came just before a wait
        return False

    def cease(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._enough = 0


@pytest.fixture
def barrage() -> Iterator[Barrage]:
    made = Barrage()
    before = signal.signal(signal.SIGALRM, made.handle)
    yield made
    made.cease()
    signal.signal(signal.SIGALRM, before)


def test_no_barrage_of_signals_gets_a_read_out_before_its_helpers(barrage: Barrage) -> None:
    main = threading.get_ident()
    helper_began = threading.Event()
    writing = left_early = interrupted = 0

    def perform(_effect: Effect) -> Any:
        nonlocal writing
        if threading.get_ident() == main:
            helper_began.wait()
            return
        writing = 1
        helper_began.set()
        barrage.fire()
        writing = 0

    def steps() -> Steps[None]:
        yield Refresh()

    crew = Crew(1)
    try:
        for _ in range(ROUNDS):
            helper_began = threading.Event()
            try:
                crew.together([steps(), steps()], perform)
            except Alarm:
                interrupted += 1
                left_early += writing
            barrage.cease()
            until(lambda: not writing, "the helper ended")
        until(lambda: not writing, "the helper ended")
        crew.together([steps(), steps()], lambda _effect: None)
        assert signal.getsignal(signal.SIGALRM) == barrage.handle
    finally:
        barrage.cease()
        crew.close()
    assert interrupted > ROUNDS // 2
    assert left_early == 0
