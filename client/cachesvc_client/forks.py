"""Which process this is: a number that every fork increases, and what a child must leave alone.

Rules: sockets, threads, locks and gRPC channels of the parent are useless in a child and harmful to
touch: a socket shut down there is shut down here. So whatever does I/O belongs to a generation
(`mine`); in a child it is parked: made immortal, so that nothing of it is ever finalized there,
not even at the end of the interpreter. The child makes its own.

A module that a thread of the parent is importing at the fork is locked in the child for ever
(CPython has a lock for each). So what is imported late, in the midst of a read, is imported with
forks `held_off`.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - see below
import ctypes
import logging  # noqa: F401 - see below
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, RLock
from weakref import WeakSet

_LIMIT_S = 10.0  # that a fork waits for imports: longer, and it would seem to hang
generation = 0
lock = Lock()  # guards the making of I/O state; made anew in a child, where nobody can hold it
_alive: WeakSet[object] = WeakSet()
_forking = RLock()  # held while a fork is under way, or must not be


def mine(state: object) -> None:
    """Remember what does I/O in this process."""
    _alive.add(state)


@contextmanager
def held_off() -> Iterator[None]:
    """A fork by another thread begins before or behind the block, and waits for its end."""
    with _forking:
        yield


def _before() -> None:
    _forking.acquire(timeout=_LIMIT_S)


def _in_parent() -> None:
    with suppress(RuntimeError):  # it was not to be had
        _forking.release()


def _in_child() -> None:
    global generation, lock, _forking  # noqa: PLW0603 - the process is the one thing that is global
    generation += 1
    lock = Lock()
    _forking = RLock()
    for inherited in list(_alive):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    _alive.clear()


# What is registered last is called first. Those two take locks of their own at a fork, which an
# import that is under way needs (for its logger), so they are imported, and registered, before.
os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
