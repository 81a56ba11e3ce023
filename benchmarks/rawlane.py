"""The raw clients of the benchmarks: HTTP and our frames, received alike into a ready buffer."""

from __future__ import annotations

import socket
from struct import Struct

from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.request import StatRequest
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.wire import codec, lone
from cachesvc.wire.frame import (
    MAX_HEADER_BYTES,
    PREFIX_BYTES,
    PROTOCOL_VERSION,
    Kind,
    encode,
    parse_prefix,
)
from cachesvc.wire.v1 import cache_pb2, cluster_pb2

_PREFIX = Struct(">4sIQ")  # what kind, the header's bytes, the body's
_ANSWER = encode(Kind.READ_ANSWER, b"")[:4]
_FIRST_BYTES = 16 << 10  # received at once at the beginning of an answer, of either server


def receive_exactly(sock: socket.socket, view: memoryview) -> None:
    """Fill the view."""
    while view:
        count = sock.recv_into(view)
        if count == 0:
            raise ConnectionError("the server hung up")
        view = view[count:]


class RawLane:
    """One connection of the TCP lane; checksums are received and not checked."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._room = memoryview(bytearray(PREFIX_BYTES + MAX_HEADER_BYTES))
        self._first = self._room[:_FIRST_BYTES]
        self._filled = 0
        self._epoch = 0
        self._last = b"?"  # how the header of a last frame ends, once an epoch was told
        self._known: dict[int, tuple[ObjectVersion, bytes]] = {}  # by id, which stays
        hello = cluster_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION)
        self.sock.sendall(encode(Kind.HELLO, hello.SerializeToString()))
        self._frame(memoryview(bytearray()))

    def _frame(self, view: memoryview) -> tuple[Kind, bytes, int]:
        """Kind, header and size of the next frame's body, which is received into the view. The
        first receive takes what has come, as that of RawHttp does.
        """
        room, self._filled, filled = self._room, 0, self._filled
        while filled < PREFIX_BYTES:
            filled += self._some(room[filled:_FIRST_BYTES])
        prefix = parse_prefix(room)
        end = PREFIX_BYTES + prefix.header_bytes
        while filled < end:
            filled += self._some(room[filled:end])
        early = min(filled - end, prefix.body_bytes)
        view[:early] = room[end : end + early]
        receive_exactly(self.sock, view[early : prefix.body_bytes])
        header = bytes(room[PREFIX_BYTES:end])
        if filled > end + early:  # the beginning of the next frame
            self._filled = filled - end - early
            room[: self._filled] = bytes(room[end + early : filled])
        return prefix.kind, header, prefix.body_bytes

    def _some(self, view: memoryview) -> int:
        count = self.sock.recv_into(view)
        if count == 0:
            raise ConnectionError("the node hung up")
        return count

    def stat(self, name: ObjectName) -> ObjectVersion:
        self.sock.sendall(encode(Kind.STAT, codec.pack_stat(StatRequest(name))))
        kind = Kind.READ_ANSWER
        while kind is Kind.READ_ANSWER:  # `pending`, while the origin is asked
            kind, header, _ = self._frame(memoryview(bytearray()))
        answer = codec.unpack_stat_answer(name, codec.parse(cache_pb2.StatAnswer, header))
        assert answer.version is not None
        return answer.version

    def read_into(self, version: ObjectVersion, start: int, view: memoryview) -> None:
        """The bytes from `start` on, as many as the view has room for. An answer of one frame is
        known by its prefix and by how its header ends; any other one is parsed.
        """
        known = self._known.get(id(version))
        if known is None:
            known = self._known[id(version)] = version, lone.request_start(version)
        length = len(view)
        self.sock.sendall(lone.pack_read(known[1], start, start + length, 0))
        room, filled = self._room, self._filled or self._some(self._first)
        kind, header_bytes, body_bytes = _PREFIX.unpack_from(room)
        border = PREFIX_BYTES + header_bytes
        if (  # an only frame
            filled >= border
            and kind == _ANSWER
            and body_bytes == length
            and room[border - len(self._last) : border] == self._last
        ):
            view[: filled - border] = room[border:filled]
            if filled < border + length:
                receive_exactly(self.sock, view[filled - border :])
            self._filled = 0
            return
        self._filled = filled
        while True:
            _, raw, body_bytes = self._frame(view)
            view = view[body_bytes:]
            header = cache_pb2.ReadHeader.FromString(raw)
            codec.raise_error(header.error)
            if header.epoch and header.epoch != self._epoch:
                self._epoch = header.epoch
                self._last = lone.answer_shape(b"", 1, CHECKSUM_BYTES, header.epoch)[2]
            if header.last:
                return

    def close(self) -> None:
        self.sock.close()


class RawHttp:
    """One keep-alive connection of HTTP/1.1, with ranges."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = bytearray(_FIRST_BYTES)
        self._room = memoryview(self._head)

    def read_into(self, path: str, start: int, view: memoryview) -> None:
        end = start + len(view) - 1
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nRange: bytes={start}-{end}\r\n\r\n"
        self.sock.sendall(request.encode())
        head, room = self._head, self._room
        filled = self.sock.recv_into(head)
        while (border := head.find(b"\r\n\r\n", 0, filled)) < 0:
            count = self.sock.recv_into(room[filled:])
            if count == 0:
                raise ConnectionError("the server hung up")
            filled += count
        if not head.startswith(b"HTTP/1.1 206"):
            raise ConnectionError(f"not a partial answer: {bytes(head[:30])!r}")
        early = filled - border - 4
        view[:early] = room[border + 4 : filled]
        if early < len(view):
            receive_exactly(self.sock, view[early:])

    def close(self) -> None:
        self.sock.close()
