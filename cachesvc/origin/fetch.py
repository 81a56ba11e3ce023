"""The bytes of one fill: a GET on a blocking socket, landed straight in the sink by a fill thread.

Rules
- Every GET names its version (If-Match; a probe, probe.py, as soon as it has one) and its range,
  and the answer must prove both before a byte lands: status 206 (200 only for the whole object),
  Content-Range with the version's size, the exact length, the ETag.
- An answer that fails a check, is cut, stays silent, or comes too slowly (its head within
  read_timeout_ms, its body as LEAST_BYTES_PER_S says), is Broken; the caller may try again, and the
  next GET starts behind the bytes that have landed. What landed is right: it came under
  If-Match, from this version.
- `stop()` may come from any thread: it shuts the socket down, and a blocked receive returns at
  once.
- No exception of ours and no frame that holds the sink leaves `attempt`: results are values, so
  that the buffer is free when it returns. Nothing here touches the sink afterwards.
- A Content-Encoding is no reason to refuse: S3 repeats the one that an object was stored with and
  sends the stored bytes, and the length, range and ETag say whether they are the stored ones.

Story: `attempt` takes an idle connection or makes one, sends the request, has `http1.Answer` read
the head, checks it, and receives the body in segments that grow from SEGMENT_BYTES to
MAX_SEGMENT_BYTES. An idle connection that the origin had closed before answering one byte is
replaced by a new one at once; that costs no attempt. Proxies of the environment (HTTPS_PROXY) are
ignored.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from urllib.parse import urlsplit

from cachesvc.core.promise import size_told
from cachesvc.core.request import LEAST_BYTES_PER_S
from cachesvc.core.types import ByteRange, ObjectVersion
from cachesvc.origin.base import Sink
from cachesvc.origin.connections import Connection, Connections, Endpoint
from cachesvc.origin.http1 import Answer, CutShort, Head, WrongAnswer

SEGMENT_BYTES = 256 << 10  # how much lands between two calls of Sink.landed, at first; then as much
MAX_SEGMENT_BYTES = 2 << 20  # as has landed, and this at most
SEGMENT_S = 0.05  # between two calls where less has landed since
ERROR_BODY_MAX_BYTES = 16 << 10


class Result(Enum):
    """How an attempt ended."""

    DONE = "done"
    BROKEN = "broken"  # connection trouble or a wrong answer: trying again may help
    REFUSED = "refused"  # the origin answered with an error status
    CHANGED = "changed"  # the origin has another version now
    STOPPED = "stopped"  # by stop() or by the sink
    UNPROVEN = "unproven"  # of a probe: the answer does not say enough


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one GET. status: of the answer, 0 if there was none. error: S3's own code, such
    as NoSuchKey.
    """

    result: Result
    status: int
    error: str
    detail: str
    received_bytes: int


class _Stopped(Exception):
    pass


class _Changed(Exception):
    pass


class Transfer:
    """One fill: the same range of the same version, over as many attempts as its owner makes, one
    at a time.

    landed_bytes: how much of the range is in the sink, over all attempts.
    """

    __slots__ = (
        "_connections",
        "_heard",
        "_lock",
        "_read_timeout_ms",
        "_received_bytes",
        "_sink",
        "_socket",
        "_status",
        "_stopped",
        "_until_s",
        "landed_bytes",
        "version",
        "wanted",
    )

    def __init__(
        self,
        version: ObjectVersion,
        wanted: ByteRange,
        sink: Sink,
        connections: Connections,
        read_timeout_ms: int,
    ) -> None:
        assert 0 < wanted.length_bytes <= version.size_bytes - wanted.start, f"{wanted} {version}"
        self.version = version
        self.wanted = wanted
        self.landed_bytes = 0
        self._sink = sink
        self._connections = connections
        self._read_timeout_ms = read_timeout_ms
        self._received_bytes = 0
        self._heard = False
        self._status = 0
        self._lock = Lock()
        self._socket: socket.socket | None = None
        self._stopped = False
        self._until_s = 0.0  # when what is being received now must have come

    def stop(self) -> None:
        """End the attempt under way, and every later one, soon. Never blocks; from any thread."""
        with self._lock:
            self._stopped = True
            if self._socket is not None:
                _shut_down(self._socket)

    def attempt(self, url: str) -> Outcome:
        """One GET for what is still missing. Blocks; raises only what the sink itself raises, and
        takes its OSError for one of the connection.
        """
        self._received_bytes = self._status = 0
        try:
            return self._get(url)
        except _Stopped:
            return self._outcome(Result.STOPPED)
        except _Changed as error:
            return self._outcome(Result.CHANGED, str(error))
        except (WrongAnswer, CutShort) as error:
            trouble = str(error)
        except (OSError, UnicodeError) as error:
            trouble = f"{type(error).__name__}: {error}"
        return self._outcome(Result.STOPPED if self._stopped else Result.BROKEN, trouble)

    def _get(self, url: str) -> Outcome:
        connection, answer = self._ask(*self._request(url))
        reusable = False
        try:
            head = answer.head
            self._status = head.status
            if head.status in (200, 206):
                self._verify(head)
                self._land(answer)
                read_whole, outcome = not head.chunked, self._outcome(Result.DONE)
            else:
                read_whole, outcome = self._refusal(answer)
            reusable = read_whole and head.keep_alive and answer.drained
            return outcome
        finally:
            self._let_go()
            if reusable:
                self._connections.give(connection)
            else:
                connection.close()

    def _request(self, url: str) -> tuple[Endpoint, bytes]:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        endpoint = Endpoint(parts.hostname or "", parts.port or (443 if secure else 80), secure)
        first = self.wanted.start + self.landed_bytes
        target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        request = (
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Range: bytes={first}-{self.wanted.end - 1}\r\n{self._condition()}"
            "Accept: */*\r\nAccept-Encoding: identity\r\nUser-Agent: cachesvc\r\n\r\n"
        )
        return endpoint, request.encode("ascii")

    def _condition(self) -> str:
        return f"If-Match: {self.version.etag}\r\n"

    def _ask(self, endpoint: Endpoint, request: bytes) -> tuple[Connection, Answer]:
        """Send the request; the head of the answer. The origin may have closed an idle connection
        just before.
        """
        idle = self._connections.take(endpoint)
        if idle is not None:
            try:
                return idle, self._exchange(idle, request)
            except (CutShort, OSError) as error:
                if self._heard or self._stopped or isinstance(error, TimeoutError):
                    raise
        fresh = self._connections.connect(endpoint, self._hold)
        return fresh, self._exchange(fresh, request)

    def _exchange(self, connection: Connection, request: bytes) -> Answer:
        self._heard = False
        self._until_s = time.monotonic() + self._read_timeout_ms / 1000

        def receive(part: memoryview, all_of_it: bool) -> int:
            return self._receive(connection, part, all_of_it)

        try:
            self._hold(connection.socket)
            connection.socket.sendall(request)
            return Answer(receive)
        except BaseException:
            self._let_go()
            connection.close()
            raise

    def _receive(self, connection: Connection, part: memoryview, all_of_it: bool) -> int:
        silent_s = time.monotonic() + self._read_timeout_ms / 1000
        flags = connection.receive_flags if all_of_it else 0
        while not (self._stopped or self._sink.cancelled):
            now_s = time.monotonic()
            if now_s >= min(silent_s, self._until_s):
                silent = now_s >= silent_s or not self._heard
                why = f"no bytes for {self._read_timeout_ms} ms" if silent else "it is too slow"
                raise TimeoutError(why)
            with contextlib.suppress(TimeoutError, BlockingIOError):  # a tick has passed
                count = connection.socket.recv_into(part, len(part), flags)
                self._heard = self._heard or count > 0
                return count
            if all_of_it and self.landed_bytes:  # who waits for it does not wait for the rest
                self._sink.landed(self.landed_bytes)
        raise _Stopped

    def _verify(self, head: Head) -> None:
        """Raises unless the answer is what is still missing of this version, to the byte."""
        first, end = self.wanted.start + self.landed_bytes, self.wanted.end
        size_bytes = self.version.size_bytes
        etag = head.fields.get("etag")
        if etag is None:
            raise WrongAnswer("the answer has no ETag")
        if etag != self.version.etag:
            raise _Changed(f"the origin answers with version {etag}, not {self.version.etag}")
        found, length_bytes = head.fields.get("content-range"), head.length_bytes
        told = length_bytes if head.status == 200 else size_told(found)
        if told not in (None, size_bytes):
            raise _Changed(f"the origin's {etag} has {told} bytes, not {size_bytes}")
        if head.status == 200 and (first, end) != (0, size_bytes):
            raise WrongAnswer(f"the whole object came instead of bytes [{first}, {end})")
        if head.status == 206 and found != f"bytes {first}-{end - 1}/{size_bytes}":
            raise WrongAnswer(f"Content-Range is {found}, not bytes {first}-{end - 1}/{size_bytes}")
        if head.chunked:
            if head.fields["transfer-encoding"].lower() != "chunked" or length_bytes is not None:
                raise WrongAnswer("the answer's Transfer-Encoding leaves its length open")
        elif length_bytes != end - first:
            raise WrongAnswer(f"Content-Length is {length_bytes}, not {end - first}")

    def _land(self, answer: Answer) -> None:
        total_bytes = self.wanted.length_bytes
        view = self._sink.view
        assert len(view) == total_bytes, f"{self.wanted}: the sink has another length"
        chunked = answer.head.chunked
        chunk_left = 0 if chunked else total_bytes
        told_bytes, told_s = self.landed_bytes, time.monotonic()
        limit_s = self._read_timeout_ms / 1000 + (total_bytes - told_bytes) / LEAST_BYTES_PER_S
        self._until_s = told_s + limit_s
        try:
            while (begin := self.landed_bytes) < total_bytes:
                if not chunk_left:
                    chunk_left = answer.read_chunk_size()
                    if not chunk_left:
                        raise CutShort(f"the body ended after {begin} of {total_bytes} bytes")
                border = _next_border(begin)
                with view[begin : min(begin + chunk_left, border, total_bytes)] as part:
                    count = answer.read_some(part)
                if not count:
                    raise CutShort(f"the connection was cut after {begin} of {total_bytes} bytes")
                self._received_bytes += count
                self.landed_bytes += count
                chunk_left -= count
                whole = self.landed_bytes == total_bytes  # whatever comes of the coding behind it
                if chunked and not (chunk_left or whole) and answer.read_line():
                    raise WrongAnswer("a chunk is longer than it says")
                if whole or self.landed_bytes == border or time.monotonic() - told_s >= SEGMENT_S:
                    told_bytes, told_s = self.landed_bytes, time.monotonic()
                    self._sink.landed(told_bytes)
        finally:
            if self.landed_bytes > told_bytes:
                self._sink.landed(self.landed_bytes)
            if self.landed_bytes < total_bytes:
                self._sink.broke_off()

    def _refusal(self, answer: Answer) -> tuple[bool, Outcome]:
        """Whether the answer was read whole, and what it says."""
        self._until_s = time.monotonic() + self._read_timeout_ms / 1000
        body = answer.read_small_body(ERROR_BODY_MAX_BYTES)
        text = (body or b"").decode("utf-8", "replace")
        status = answer.head.status
        result = Result.CHANGED if status in (412, 416) else Result.REFUSED
        return body is not None, self._outcome(result, _tag(text, "Message"), _tag(text, "Code"))

    def _hold(self, connected: socket.socket) -> None:
        with self._lock:
            if self._stopped:
                raise _Stopped
            self._socket = connected

    def _let_go(self) -> None:
        with self._lock:
            self._socket = None

    def _outcome(self, result: Result, detail: str = "", error: str = "") -> Outcome:
        return Outcome(result, self._status, error, detail, self._received_bytes)


def _next_border(landed_bytes: int) -> int:
    """Where the segment ends that goes on behind what has landed: 0.25, 0.5, 1, 2, 4, 6, 8 MiB."""
    step = SEGMENT_BYTES
    while step < MAX_SEGMENT_BYTES and 2 * step <= landed_bytes:
        step *= 2
    return (landed_bytes // step + 1) * step


def _tag(text: str, name: str) -> str:
    found = re.search(f"<{name}>([^<]{{0,300}})</{name}>", text)
    return found[1] if found else ""


def _shut_down(connected: socket.socket) -> None:
    """Wake whoever blocks on the socket. Not `SSLSocket.shutdown`: that takes the TLS state away,
    and what is then received is cipher text."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
