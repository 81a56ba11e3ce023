"""Block files passed to clients on the same host: read-only descriptors beside a frame.

Story: for a client that takes descriptors, a frame of an answer numbers the block files of its
segments (`Files`) and becomes a PassedPart; the lane's thread gives it to `send` (SCM_RIGHTS).

Rules
- The store's files are open for writing, so what is passed is opened anew, read-only, by way of
  /proc/self/fd, which finds files that were unlinked meanwhile too.
- A descriptor is open here for the length of one sendmsg, whatever comes of it. What the kernel has
  taken is the client's, or nobody's once the client is gone: a dead client leaks nothing here.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from dataclasses import dataclass

from cachesvc.pins import Pin

MAX_DESCRIPTOR_COUNT = 253  # the kernel's SCM_MAX_FD: in one message
_BARRED = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM}


@dataclass(slots=True)
class PassedPart:
    """A whole frame, and the pinned block files whose descriptors travel with it."""

    frame: memoryview
    pins: list[Pin]


class Unopened(OSError):
    """A pinned block file could not be opened once more. `pin`: which one. barred: that says
    nothing of its disk, but that this process may not, or has no /proc.
    """

    def __init__(self, pin: Pin, error: OSError) -> None:
        super().__init__(error.errno, f"a block file cannot be passed: {error.strerror}")
        self.pin = pin
        self.barred = error.errno in _BARRED


class Files:
    """The block files of one frame, each once, in the order of their descriptors."""

    def __init__(self) -> None:
        self.pins: list[Pin] = []
        self._numbers: dict[int, int] = {}

    def number(self, pin: Pin) -> int:
        """Which descriptor of the frame the pinned file is."""
        file = pin.fileno()
        if file not in self._numbers:
            self._numbers[file] = len(self.pins)
            self.pins.append(pin)
        return self._numbers[file]


def send(sock: socket.socket, part: PassedPart) -> int:
    """Send the frame with its descriptors; how many bytes of it left, the descriptors with them.

    Raises:
        BlockingIOError: nothing left. Unopened: a file could not be opened. OSError: the socket.
    """
    assert 0 < len(part.pins) <= MAX_DESCRIPTOR_COUNT, f"{len(part.pins)} descriptors in a message"
    opened = array("i")
    try:
        for pin in part.pins:
            opened.append(_reopened(pin))
        return sock.sendmsg([part.frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, opened)])
    finally:
        for file in opened:
            os.close(file)


def _reopened(pin: Pin) -> int:
    try:
        return os.open(f"/proc/self/fd/{pin.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unopened(pin, error) from error
