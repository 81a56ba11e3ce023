"""One connection of the TCP lane: blocking, one request at a time, received in place.

Rules: every wait is bounded, by the kernel's own socket timeouts, so that one recv takes a whole
segment; whatever fails is NodeUnavailable or ProtocolError and names the node. A connection that
raised anything but a clean error frame is closed by its user and never used again.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from cachesvc.core.errors import NodeUnavailable, ProtocolError
from cachesvc.wire import codec
from cachesvc.wire.frame import PREFIX_BYTES, Kind, Prefix, encode, parse_prefix
from cachesvc.wire.v1 import cluster_pb2
from cachesvc_client.config import ClientConfig, split_address
from cachesvc_client.hello import Welcome, hello, unpack_welcome

_TIMEVAL = struct.Struct("@ll")


class HungUp(NodeUnavailable):
    """The node closed the connection, where silence would be NodeUnavailable itself."""


class Connection:
    """A connection that has said Hello.

    welcome: what the node said. heard: whether anything came since `send`. clean: whether it stands
    between two answers.

    Raises:
        NodeUnavailable: not reached, or silent, in time. ProtocolError: reached, and no node.
        Unauthenticated: the node wants another token.
    """

    def __init__(self, address: str, config: ClientConfig) -> None:
        self.address = address
        self.heard = False
        self.clean = True
        self._sock = self._connected(address, config)
        try:
            self._limit(config.hello_timeout_ms)
            self.send(Kind.HELLO, hello(config.token).SerializeToString())
            prefix, header = self.frame()
            if prefix.kind is not Kind.WELCOME or prefix.body_bytes:
                raise ProtocolError(f"node {address} answers Hello with {prefix.kind.name}")
            self.welcome: Welcome = unpack_welcome(
                codec.parse(cluster_pb2.Welcome, header), address
            )
            self._limit(config.silence_ms)
        except BaseException:
            self.close()
            raise
        self.clean = True

    def send(self, kind: Kind, header: bytes) -> None:
        """Send a request."""
        self.heard = self.clean = False
        try:
            self._sock.sendall(encode(kind, header))
        except BlockingIOError as error:
            raise NodeUnavailable(f"node {self.address} takes no request") from error
        except OSError as error:
            raise HungUp(f"node {self.address} hung up: {error}") from error

    def frame(self) -> tuple[Prefix, bytes]:
        """Prefix and header of the next frame; the caller receives the body (`fill`)."""
        try:
            prefix = parse_prefix(self._receive(PREFIX_BYTES))
        except ProtocolError as error:
            raise ProtocolError(
                f"{self.address}: {error}; give a node's lane, or grpc://HOST:PORT for gRPC"
            ) from error
        return prefix, self._receive(prefix.header_bytes)

    def fill(self, view: memoryview) -> None:
        """Receive exactly as many bytes as the view has."""
        while view:
            try:
                count = self._sock.recv_into(view, len(view), socket.MSG_WAITALL)
            except BlockingIOError as error:
                raise NodeUnavailable(f"node {self.address} is silent") from error
            except OSError as error:
                raise HungUp(f"node {self.address} hung up: {error}") from error
            if count == 0:
                raise HungUp(f"node {self.address} hung up in mid-answer")
            self.heard = True
            view = view[count:]

    def idle(self) -> bool:
        """Whether nothing has happened on the connection, as it should be between two requests."""
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
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

    def _receive(self, count_bytes: int) -> bytes:
        data = bytearray(count_bytes)
        self.fill(memoryview(data))
        return bytes(data)

    @staticmethod
    def _connected(address: str, config: ClientConfig) -> socket.socket:
        limit_s = config.connect_timeout_ms / 1000
        try:
            sock = socket.create_connection(split_address(address), timeout=limit_s)
        except (OSError, UnicodeError) as error:
            raise NodeUnavailable(f"node {address} cannot be reached: {error}") from error
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
        limit = _TIMEVAL.pack(silence_ms // 1000, silence_ms % 1000 * 1000)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._sock.setsockopt(socket.SOL_SOCKET, option, limit)
