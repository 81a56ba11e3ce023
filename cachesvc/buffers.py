"""Memory for fills, used again and again.

Why: memory that the kernel hands out anew costs a page fault for every 4 KiB; on a virtual machine
that made a fill slower than its network (docs/decisions/0008-fill-buffers-are-reused.md).

Rules: a buffer that came back is handed out again only when nobody has a view of it any more. That
is not a promise of its users but a fact asked of the buffer: a bytearray refuses to change its size
while a view of it lives. So a slow reader delays the reuse of a buffer and can never see it change;
what such readers hold is counted (`lingering_bytes`). A view begins FIRST_BYTE behind a page of the
system: right behind one, where large bytearrays begin, some processors copy bytes of a file, which
begin with a page, at a fifth of their speed (docs/decisions/0023-slow-places-of-memory.md).
"""

from __future__ import annotations

from threading import Lock

from cachesvc.core.memory import address_of

FIRST_BYTE = 64
_PAGE_BYTES = 4096
MIN_BUFFER_BYTES = (64 << 10) + _PAGE_BYTES


def room_bytes(size_bytes: int) -> int:
    """What a buffer for so many bytes, at least 1, takes."""
    return max(MIN_BUFFER_BYTES, (1 << (size_bytes - 1).bit_length()) + _PAGE_BYTES)


MAX_IDLE_BYTES = 32 * room_bytes(8 << 20)  # whole blocks


class BufferPool:
    """Buffers with room for powers of two. Thread-safe."""

    def __init__(self, max_idle_bytes: int = MAX_IDLE_BYTES) -> None:
        self._max_idle_bytes = max_idle_bytes
        self._lock = Lock()
        self._idle_bytes = 0
        self._idle: dict[int, list[bytearray]] = {}
        self._lingering: list[bytearray] = []

    def take(self, size_bytes: int) -> tuple[bytearray, memoryview]:
        """A buffer, to be given back, and a view of its first `size_bytes`, of any content."""
        taken_bytes = room_bytes(size_bytes)
        with self._lock:
            self._settle()
            idle = self._idle.get(taken_bytes)
            buffer = idle.pop() if idle else None
            self._idle_bytes -= taken_bytes if buffer is not None else 0
        if buffer is None:
            buffer = bytearray(taken_bytes)
        first = (FIRST_BYTE - address_of(buffer)) % _PAGE_BYTES
        return buffer, memoryview(buffer)[first : first + size_bytes]

    def give(self, buffer: bytearray) -> None:
        """Give a buffer back; views of it may live on."""
        with self._lock:
            self._lingering.append(buffer)
            self._settle()

    def lingering_bytes(self) -> int:
        """What slow readers still hold of buffers that were given back."""
        with self._lock:
            self._settle()
            return sum(len(buffer) for buffer in self._lingering)

    def _settle(self) -> None:
        """Buffers that nobody sees any more become idle; beyond the bound, Python frees them."""
        lingering, self._lingering = self._lingering, []
        for buffer in lingering:
            if not _unseen(buffer):
                self._lingering.append(buffer)
            elif self._idle_bytes + len(buffer) <= self._max_idle_bytes:
                self._idle_bytes += len(buffer)
                self._idle.setdefault(len(buffer), []).append(buffer)


def _unseen(buffer: bytearray) -> bool:
    """Whether no view of the buffer is left."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
