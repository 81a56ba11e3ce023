"""A signal that restarts system calls does so during a read and after it.

Story: a read puts keepers in place of signal handlers, and `signal.signal` has system calls fail
with EINTR from then on, also for a handler that was set not to (`signal.siginterrupt(n, False)`,
as asyncio does): C libraries of the program, which expect none, failed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from cachesvc_client.interrupts import Held

SIGNALS = 50


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR1, before)


def interrupted() -> bool:
    """Whether signals end a system call of the main thread. C's own read: Python's tries again."""
    libc = ctypes.CDLL(None)
    receiving, sending = os.pipe()
    main = threading.get_ident()

    def fire() -> None:
        for _ in range(SIGNALS):
            signal.pthread_kill(main, signal.SIGUSR1)
            threading.Event().wait(0.001)
        os.write(sending, b"x")

    firing = threading.Thread(target=fire)
    firing.start()
    count = libc.read(receiving, ctypes.create_string_buffer(1), 1)
    firing.join()
    os.close(receiving)
    os.close(sending)
    return int(count) < 0


@pytest.mark.parametrize("interrupts", [False, True])
def test_a_read_leaves_system_calls_restarting(interrupts: bool) -> None:
    signal.siginterrupt(signal.SIGUSR1, interrupts)
    with Held(lambda: None):
        assert interrupted() == interrupts
    assert interrupted() == interrupts
