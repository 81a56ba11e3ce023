"""One connection of the TCP or Unix lane: blocking, one request at a time, received in place.

Rules: every wait is bounded, by the kernel's own socket timeouts, so that one recv takes a whole
segment; whatever fails is NodeUnavailable or ProtocolError and names the node. A connection that
raised anything but a clean error frame is closed by its user and never used again. An answer under
way that comes too slowly (pace.py) is as good as none. Descriptors that came with a frame are
this connection's until `close_files`, and never outlive it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from weakref import ref

from cachesvc import names
from cachesvc.core.errors import NodeUnavailable, ProtocolError
from cachesvc.core.request import SMALL_BODY_BYTES
from cachesvc.wire import codec
from cachesvc.wire.frame import PREFIX_BYTES, Kind, Prefix, encode, parse_prefix
from cachesvc.wire.v1 import cluster_pb2
from cachesvc_client import bounce
from cachesvc_client.config import ClientConfig, is_local, socket_path, split_address
from cachesvc_client.hello import Welcome, hello, unpack_welcome
from cachesvc_client.pace import TOO_SLOW, Pace

_SMALL_HEAD_BYTES = PREFIX_BYTES + 512  # of a small frame: an ETag has 256 bytes at most
_AWAITED_BYTES = 256 << 10  # of a large body, at a time (docs/decisions/0020)
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_TIMEVAL = struct.Struct("@ll")
_FILES_BYTES = socket.CMSG_SPACE(253 * 4)  # as many descriptors as the kernel lets one message have


def _nobody(_count_bytes: int) -> None:
    """Is told, and does nothing."""


class HungUp(NodeUnavailable):
    """The node closed the connection, where silence would be NodeUnavailable itself."""


class NotReached(NodeUnavailable):
    """Nobody accepts connections there."""


class ShortOfFiles(ProtocolError):
    """This process may not open as many files as were passed to it."""


class _Patience:
    """What fails while an answer is awaited, as what it says of the node."""

    __slots__ = ("_address",)

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        if isinstance(error, BlockingIOError):
            raise NodeUnavailable(f"node {self._address} is silent") from error
        if isinstance(error, OSError):
            raise HungUp(f"node {self._address} hung up: {error}") from error


class Connection:
    """A connection that has said Hello.

    address: host:port, or unix:///path, which is `local`. files: the descriptors that came with the
    last frame.

    welcome: what the node said. pace: of the answer under way. heard: whether anything came since
    `send`. clean: whether it stands between two answers. mark: of who has it in a pool, to know it
    by without keeping it. Nobody's, its socket closes itself; by no `__del__`, in which what a
    signal's handler raises would be lost.

    Raises:
        NodeUnavailable: not reached, or silent, in time. ProtocolError: reached, and no node.
        Unauthenticated: the node wants another token.
    """

    mark: ref[Connection]

    def __init__(self, address: str, config: ClientConfig) -> None:
        self.address = address
        self.local = is_local(address)
        self.files: list[int] = []
        self.heard = False
        self.clean = True
        self._silence_s = config.hello_timeout_ms / 1000
        self._patience = _Patience(address)
        self._room = memoryview(bytearray(SMALL_BODY_BYTES + _SMALL_HEAD_BYTES))
        self._early = b""
        self._sock = self._connected(address, config)
        self._same_host = not self.local and _same_host(self._sock)
        try:
            self._limit(config.hello_timeout_ms)
            self.send(Kind.HELLO, hello(config.token).SerializeToString())
            prefix, header = self.frame()
            if prefix.kind is not Kind.WELCOME or prefix.body_bytes:
                raise ProtocolError(f"node {address} answers Hello with {prefix.kind.name}")
            self.welcome: Welcome = unpack_welcome(
                codec.parse(cluster_pb2.Welcome, header), address
            )
            self._silence_s = config.silence_ms / 1000
            self._limit(config.silence_ms)
        except BaseException:
            self.close()
            raise
        self.clean = True

    def send(self, kind: Kind, header: bytes) -> None:
        """Send a request."""
        self.send_frame(encode(kind, header))

    def send_frame(self, frame: bytes) -> None:
        """Send a request that is a frame already."""
        self.heard = self.clean = False
        self.pace = Pace(self._silence_s)
        try:
            self._sock.sendall(frame)
        except BlockingIOError as error:
            raise NodeUnavailable(f"node {self.address} takes no request") from error
        except OSError as error:
            raise HungUp(f"node {self.address} hung up: {error}") from error

    def frame(self) -> tuple[Prefix, bytes]:
        """Prefix and header of the next frame; the caller receives the body (`fill`)."""
        receive = self._receive_with_files if self.local else self._receive
        raw = receive(PREFIX_BYTES)
        try:
            prefix = parse_prefix(raw)
        except ProtocolError as error:
            raise ProtocolError(
                f"{self.address}: {error}; give a node's lane, or grpc://HOST:PORT for gRPC"
            ) from error
        return prefix, self._receive(prefix.header_bytes)

    def beginning(self, prefix: bytes, count_bytes: int) -> memoryview:
        """As many bytes of the next frame, from its prefix on, if that is this prefix; else what
        has come of them. The caller gives them back by `unread`, or has read them.
        """
        room = self._room[:count_bytes]
        asked_s = time.monotonic()
        with self._patience:
            count = self._sock.recv_into(room)
        self._hear(count, asked_s)
        if count < count_bytes and room[:PREFIX_BYTES] == prefix and count >= PREFIX_BYTES:
            self.fill(room[count:])
            return room
        return room[:count]

    def unread(self, data: memoryview) -> None:
        """Give back what was received last: it comes again."""
        self._early = bytes(data)

    def fill(
        self, view: memoryview, start: int | None = None, landed: Callable[[int], None] = _nobody
    ) -> None:
        """Receive exactly as many bytes as the view has.

        start: of an object, from which on they are, if they come from the disk, and are checked
        where they have arrived (bounce.py). landed: told from time to time how many bytes of the
        view have come, the last time all.
        """
        by_room = start is not None and self._same_host and bounce.needed(view, start)
        rest = view
        if self._early:
            rest = self._from_early(view)
            landed(len(view) - len(rest))
        awaits = len(rest) > _AWAITED_BYTES and not self.local
        if awaits:  # be woken for no less, where so much is still to come: fewer gulps
            self._await(_AWAITED_BYTES)
        while rest:
            size = bounce.PIECE_BYTES
            if awaits and len(rest) > _AWAITED_BYTES:
                size = min(size, len(rest) - _AWAITED_BYTES)
            elif awaits:
                self._await(1)
            piece, rest = rest[:size], rest[size:]
            if by_room:
                room = bounce.room(piece)
                self._fill(room)
                piece[:] = room
            else:
                self._fill(piece)
            landed(len(view) - len(rest))

    def _await(self, count_bytes: int) -> None:
        """Be woken once so much can be received; what comes slower is had at the time limit."""
        with self._patience:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count_bytes)

    def _fill(self, view: memoryview) -> None:
        while view:
            asked_s = time.monotonic()
            with self._patience:
                count = self._sock.recv_into(view, len(view), socket.MSG_WAITALL)
            self._hear(count, asked_s)
            view = view[count:]
            if view:
                self.keep_pace()

    def keep_pace(self) -> None:
        """Raises NodeUnavailable if the answer under way comes too slowly."""
        if self.pace.too_slow:
            raise NodeUnavailable(f"node {self.address}: {TOO_SLOW}")

    def idle(self) -> bool:
        """Whether nothing has happened on the connection, as it should be between two requests."""
        if self._early:
            return False
        try:
            self._sock.recv(1, _PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def abort(self) -> None:
        """Have whoever waits on the connection, in another thread, fail at once."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()
        self.close_files()

    def close_files(self) -> None:
        """Done with the files of the last frame."""
        while self.files:
            os.close(self.files.pop())

    def _receive(self, count_bytes: int) -> bytes:
        data = bytearray(count_bytes)
        self.fill(memoryview(data))
        return bytes(data)

    def _from_early(self, view: memoryview) -> memoryview:
        """Fill the view as far as what was given back lasts; the rest of the view."""
        early = self._early[: len(view)]
        self._early = self._early[len(early) :]
        view[: len(early)] = early
        return view[len(early) :]

    def _receive_with_files(self, count_bytes: int) -> bytes:
        """The beginning of a frame: descriptors travel with its first byte."""
        data, self._early = self._early[:count_bytes], self._early[count_bytes:]
        while len(data) < count_bytes:
            asked_s = time.monotonic()
            with self._patience:
                piece, told, flags, _ = self._sock.recvmsg(
                    count_bytes - len(data), _FILES_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            for level, kind, raw in told:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self.files += memoryview(raw[: len(raw) // 4 * 4]).cast("i")
            self._hear(len(piece), asked_s)
            if flags & socket.MSG_CTRUNC:
                raise ShortOfFiles(
                    f"node {self.address} passes more files than this process may open: raise its"
                    " limit (ulimit -n)"
                )
            data += piece
            if len(data) < count_bytes:
                self.keep_pace()
        return data

    def _hear(self, count_bytes: int, asked_s: float) -> None:
        if count_bytes == 0:
            raise HungUp(f"node {self.address} hung up in mid-answer")
        self.heard = True
        self.pace.came(count_bytes, time.monotonic() - asked_s)

    @staticmethod
    def _connected(address: str, config: ClientConfig) -> socket.socket:
        try:
            if is_local(address):
                return _connected_to_path(socket_path(address), config.connect_timeout_ms)
            sock = names.connected(
                *split_address(address),
                config.resolve_timeout_ms / 1000,
                config.connect_timeout_ms / 1000,
            )
        except (OSError, UnicodeError) as error:
            raise NotReached(f"node {address} cannot be reached: {error}") from error
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A host that is gone is noticed by what it does not acknowledge: requests, and the probes
        # that are sent while an answer is waited for.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, config.unacknowledged_ms)
        return sock

    def _limit(self, silence_ms: int) -> None:
        _limit(self._sock, silence_ms)


def _same_host(sock: socket.socket) -> bool:
    with suppress(OSError):  # it is gone
        return bool(sock.getsockname()[0] == sock.getpeername()[0])
    return False


def _limit(sock: socket.socket, silence_ms: int) -> None:
    limit = _TIMEVAL.pack(silence_ms // 1000, silence_ms % 1000 * 1000)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, limit)


def _connected_to_path(path: str, limit_ms: int) -> socket.socket:
    """The kernel's own limit, and not Python's: that one fails at once when many connect."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        _limit(sock, limit_ms)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock
