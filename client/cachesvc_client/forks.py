"""Which process this is: a number that every fork increases, and what a child must leave alone.

Rules: sockets, threads, locks and gRPC channels of the parent are useless in a child and harmful to
touch: a socket shut down there is shut down here. So whatever does I/O belongs to a generation
(`mine`); in a child it is parked: made immortal, so that nothing of it is ever finalized there,
not even at the end of the interpreter. The child makes its own.
"""

from __future__ import annotations

import ctypes
import os
from threading import Lock
from weakref import WeakSet

generation = 0
lock = Lock()  # guards the making of I/O state; made anew in a child, where nobody can hold it
_alive: WeakSet[object] = WeakSet()


def mine(state: object) -> None:
    """Remember what does I/O in this process."""
    _alive.add(state)


def _in_child() -> None:
    global generation, lock  # noqa: PLW0603 - the process is the one thing that is global
    generation += 1
    lock = Lock()
    for inherited in list(_alive):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    _alive.clear()


os.register_at_fork(after_in_child=_in_child)
