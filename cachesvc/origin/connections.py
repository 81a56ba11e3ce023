"""Keep-alive connections to the origin: plain blocking sockets, http and https, for the fill
threads.

Rules: a connection is either held by one thread or idle here, never both; only a connection whose
last answer was read to its last byte comes back; an idle one that has anything to read is closed
(the origin hung up, or sent more than it had promised); idle ones are reused last in, first out,
and bounded in number and age.

Sockets are blocking with a receive timeout of TICK_MS, set in the kernel for plain ones, so that a
whole segment costs one system call (MSG_WAITALL) and a thread still looks up a few times a second.
Proxies of the environment are ignored.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from cachesvc import names

TICK_MS = 100  # how soon a thread notices that nobody wants its bytes
RESOLVE_S = 5.0  # what a name may take; beyond, the attempt has failed
IDLE_MS = 15_000  # S3 itself hangs up after about 20 s


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a connection leads. `secure`: TLS."""

    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"


class Connection:
    """One connected socket."""

    __slots__ = ("endpoint", "idle_since_ms", "receive_flags", "socket")

    def __init__(self, endpoint: Endpoint, connected: socket.socket) -> None:
        self.endpoint = endpoint
        self.socket = connected
        self.idle_since_ms = 0.0
        self.receive_flags = 0 if endpoint.secure else socket.MSG_WAITALL

    def silent(self) -> bool:
        """Whether nothing waits to be read, as it must be between two answers."""
        connected = self.socket
        if isinstance(connected, ssl.SSLSocket) and connected.pending():
            return False
        poller = select.poll()
        poller.register(connected, select.POLLIN | select.POLLPRI)
        return not poller.poll(0)

    def close(self) -> None:
        self.socket.close()


class Connections:
    """The idle connections of one origin, and the way to new ones. Thread-safe."""

    def __init__(
        self, connect_timeout_ms: int, idle_max_count: int, context: ssl.SSLContext
    ) -> None:
        self._connect_timeout_ms = connect_timeout_ms
        self._idle_max_count = idle_max_count
        self._context = context
        self._lock = Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def take(self, endpoint: Endpoint) -> Connection | None:
        """The idle connection that was used last, or None."""
        while True:
            with self._lock:
                found = next(
                    (one for one in reversed(self._idle) if one.endpoint == endpoint), None
                )
                if found is None:
                    return None
                self._idle.remove(found)
            if _now_ms() - found.idle_since_ms < IDLE_MS and found.silent():
                return found
            found.close()

    def connect(self, endpoint: Endpoint, hold: Callable[[socket.socket], None]) -> Connection:
        """A new connection. Raises OSError (TimeoutError, ssl.SSLError, ...) when there is none to
        be had, UnicodeError when no host can have that name.

        Every socket is shown to `hold` before it blocks, so that another thread can shut it down;
        if `hold` raises, the socket is closed.
        """
        found = names.addresses_of(endpoint.host, endpoint.port, RESOLVE_S)
        deadline_ms = _now_ms() + self._connect_timeout_ms
        failure: OSError | None = None
        for family, kind, protocol, _, address in found:
            left_ms = deadline_ms - _now_ms()
            if left_ms <= 0:
                break
            raw = socket.socket(family, kind, protocol)
            try:
                hold(raw)
                raw.settimeout(left_ms / 1000)
                raw.connect(address)
                return Connection(endpoint, self._prepare(raw, endpoint, hold))
            except OSError as error:
                raw.close()
                failure = error.with_traceback(None)
            except BaseException:
                raw.close()
                raise
        raise failure or TimeoutError(f"no connection within {self._connect_timeout_ms} ms")

    def _prepare(
        self, raw: socket.socket, endpoint: Endpoint, hold: Callable[[socket.socket], None]
    ) -> socket.socket:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if endpoint.secure:
            wrapped = self._context.wrap_socket(
                raw, server_hostname=endpoint.host, do_handshake_on_connect=False
            )
            try:
                hold(wrapped)
                wrapped.do_handshake()
                wrapped.settimeout(TICK_MS / 1000)
            except BaseException:
                wrapped.close()
                raise
            return wrapped
        raw.settimeout(None)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, TICK_MS * 1000))
        return raw

    def give(self, connection: Connection) -> None:
        """Take back a connection whose answer was read whole."""
        connection.idle_since_ms = _now_ms()
        with self._lock:
            spare = connection
            if not self._closed:
                self._idle.append(connection)
                if len(self._idle) <= self._idle_max_count:
                    return
                spare = self._idle.pop(0)
        spare.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _now_ms() -> float:
    return time.monotonic() * 1000
