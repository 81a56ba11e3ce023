"""Memory for fills, used again and again.

Why: memory that the kernel hands out anew costs a page fault for every 4 KiB; on a virtual machine
that made a fill slower than its network (docs/decisions/0008-fill-buffers-are-reused.md).

Rules: a buffer that came back is handed out again only when nobody has a view of it any more. That
is not a promise of its users but a fact asked of the buffer: a bytearray refuses to change its size
while a view of it lives. So a slow reader delays the reuse of a buffer and can never see it change.
"""

from __future__ import annotations

from collections import deque
from threading import Lock

MIN_BUFFER_BYTES = 64 << 10
MAX_IDLE_BYTES = 256 << 20
_LOOK_COUNT = 8  # returned buffers to look at before a new one is made


class BufferPool:
    """Buffers in sizes of powers of two. Thread-safe."""

    def __init__(self, max_idle_bytes: int = MAX_IDLE_BYTES) -> None:
        self._max_idle_bytes = max_idle_bytes
        self._lock = Lock()
        self._idle_bytes = 0
        self._idle: dict[int, deque[bytearray]] = {}

    def take(self, size_bytes: int) -> tuple[bytearray, memoryview]:
        """A buffer, to be given back, and a view of its first `size_bytes`, of any content."""
        room_bytes = max(MIN_BUFFER_BYTES, 1 << (size_bytes - 1).bit_length())
        with self._lock:
            buffer = self._reuse(room_bytes)
        if buffer is None:
            buffer = bytearray(room_bytes)
        return buffer, memoryview(buffer)[:size_bytes]

    def _reuse(self, room_bytes: int) -> bytearray | None:
        idle = self._idle.get(room_bytes, deque())
        for _ in range(min(len(idle), _LOOK_COUNT)):
            buffer = idle.popleft()
            if _unseen(buffer):
                self._idle_bytes -= room_bytes
                return buffer
            idle.append(buffer)
        return None

    def give(self, buffer: bytearray) -> None:
        """Give a buffer back; views of it may live on. Beyond the bound, Python frees it."""
        with self._lock:
            if self._idle_bytes + len(buffer) <= self._max_idle_bytes:
                self._idle_bytes += len(buffer)
                self._idle.setdefault(len(buffer), deque()).append(buffer)


def _unseen(buffer: bytearray) -> bool:
    """Whether no view of the buffer is left."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
