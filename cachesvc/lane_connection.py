"""One client of a framed lane, and what is on its way to it.

Rules: touched by its lane's thread only (lane_thread.py). Its socket does not block, but while the
thread serves this client alone (`block`).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachesvc.core.errors import CacheError
from cachesvc.lane_sending import Item
from cachesvc.lane_socket import tune
from cachesvc.wire.frame import RequestDecoder

if TYPE_CHECKING:
    from cachesvc.lane_thread import LaneThread

# That a receive waits, where it does. The kernel counts in ticks, and makes one to two more of it:
# up to 8 ms where it ticks 250 times a second.
RECEIVE_TIMEOUT = struct.pack("ll", 0, 1000)

Done = Callable[[BaseException | None], None]


@dataclass(slots=True)
class Outgoing:
    """A frame on its way out: what is left of it, and who wants to know when it has left."""

    items: deque[Item]
    done: Done


class Connection:
    """One client. `greeted` once its Hello was accepted, `busy` while it is being answered,
    `local` if it came through the Unix socket, `barred` with the reason if it may not, `blocking`
    if a receive waits for what comes.
    """

    def __init__(self, sock: socket.socket, thread: LaneThread) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, RECEIVE_TIMEOUT)
        self.sock = sock
        self.thread = thread
        self.local = sock.family == socket.AF_UNIX
        self.decoder = RequestDecoder()
        self.greeted = False
        self.barred: CacheError | None = None
        self.busy = False
        self.blocking = False
        self.closing = False
        self.outgoing: deque[Outgoing] = deque()
        self.mask = select.EPOLLIN
        self.moved_at = time.monotonic()
        with contextlib.suppress(OSError):  # it may be gone already
            tune(sock)

    @property
    def at_rest(self) -> bool:
        """Greeted, and nothing is on its way in either direction."""
        return self.greeted and not self.busy and not self.outgoing and not self.decoder.held

    def block(self, blocking: bool) -> None:
        """Have a receive wait, for RECEIVE_TIMEOUT at most, or not. As long as it does, nothing is
        sent but what is told not to wait (MSG_DONTWAIT).
        """
        if blocking is not self.blocking and not self.closing:
            self.sock.setblocking(blocking)
            self.blocking = blocking
