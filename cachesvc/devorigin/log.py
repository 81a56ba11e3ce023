"""The request log of the development origin: what tests count.

Rules
- An entry stands in the log before the first byte of its answer leaves, and has its final numbers
  before the last one does: whoever has received an answer finds it in the log.
- Bounded: the oldest entries go first.

Story: the service makes an `Entry` per request and fills it in; `RequestLog.snapshot` freezes them
for the reader.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request, as it was served.

    operation: S3's name of it (`GetObject`), or the method where it is not understood. bucket, key:
    decoded, empty where there is none. range: the honoured Range as half open `(start, end)`, or
    None. status: 0 while there is no answer. body_bytes: of the answer, handed to the kernel.
    started_at, ended_at: `time.monotonic()` seconds; ended_at is None while the answer is being
    sent. if_match: the header, or None. faults: kinds applied.
    """

    method: str
    operation: str
    bucket: str
    key: str
    range: tuple[int, int] | None
    status: int
    body_bytes: int
    started_at: float
    ended_at: float | None
    if_match: str | None
    faults: tuple[str, ...]


@dataclass(slots=True)
class Entry:
    """A request being served; fields as in LoggedRequest, and its x-amz-request-id."""

    method: str
    request_id: str = ""
    operation: str = ""
    bucket: str = ""
    key: str = ""
    range: tuple[int, int] | None = None
    status: int = 0
    body_bytes: int = 0
    started_at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None
    if_match: str | None = None
    faults: tuple[str, ...] = ()

    def end(self) -> None:
        """Note the time; again is allowed, and counts."""
        self.ended_at = time.monotonic()

    def frozen(self) -> LoggedRequest:
        """As it is now."""
        return LoggedRequest(
            self.method,
            self.operation,
            self.bucket,
            self.key,
            self.range,
            self.status,
            self.body_bytes,
            self.started_at,
            self.ended_at,
            self.if_match,
            self.faults,
        )


class RequestLog:
    """The newest `limit` requests in order of arrival. Any thread may call."""

    def __init__(self, limit: int) -> None:
        self._entries: deque[Entry] = deque(maxlen=limit)
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> None:
        """A request has arrived."""
        with self._lock:
            self._entries.append(entry)

    def snapshot(self) -> list[LoggedRequest]:
        """All entries as they are now, the running ones among them."""
        with self._lock:
            return [entry.frozen() for entry in self._entries]

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._entries.clear()
