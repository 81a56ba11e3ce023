"""Where the bytes of an origin land in tests: one range of known length, or what a probe finds.

Rules: bytes land in order and within the buffer.
"""

from __future__ import annotations

import threading

from cachesvc.core.types import ObjectVersion


class BufferSink:
    """Bytes land in a bytearray; `landings` is how far each came, `break_offs` where they stopped
    short, `first` is set at the first.

    peer: whether another cache gave some.
    """

    def __init__(self, length_bytes: int) -> None:
        self.buffer = bytearray(length_bytes)
        self.view = memoryview(self.buffer)
        self.cancelled = False
        self.peer = False
        self.landings: list[int] = []
        self.break_offs: list[int] = []
        self.first = threading.Event()

    @property
    def count_bytes(self) -> int:
        """How many bytes have landed."""
        return self.landings[-1] if self.landings else 0

    def from_peer(self) -> None:
        self.peer = True

    def landed(self, count_bytes: int) -> None:
        assert self.count_bytes <= count_bytes <= len(self.buffer)
        self.landings.append(count_bytes)
        self.first.set()

    def broke_off(self) -> None:
        self.break_offs.append(self.count_bytes)

    def free(self) -> None:
        """Raises BufferError if anybody still holds the buffer."""
        self.view.release()
        self.buffer.clear()


class ProbeSink(BufferSink):
    """A sink that learns its length from the version that is found."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(0)
        self.version: ObjectVersion | None = None
        self._range = start, end

    def landed(self, count_bytes: int) -> None:
        assert self.version is not None, "a byte has landed before the version was found"
        super().landed(count_bytes)

    def found(self, version: ObjectVersion) -> None:
        assert self.version is None
        self.version = version
        start, end = self._range
        super().__init__(min(end, version.size_bytes) - start)
