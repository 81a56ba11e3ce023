"""The raw clients of the benchmarks: HTTP and our frames, received alike into a ready buffer."""

from __future__ import annotations

import socket

from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.wire import codec
from cachesvc.wire.frame import PREFIX_BYTES, PROTOCOL_VERSION, Kind, encode, parse_prefix
from cachesvc.wire.v1 import cache_pb2, cluster_pb2


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
        hello = cluster_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION)
        self.sock.sendall(encode(Kind.HELLO, hello.SerializeToString()))
        self._head(bytearray(PREFIX_BYTES))

    def _head(self, room: bytearray) -> tuple[Kind, bytes, int]:
        receive_exactly(self.sock, memoryview(room))
        prefix = parse_prefix(room)
        header = bytearray(prefix.header_bytes)
        receive_exactly(self.sock, memoryview(header))
        return prefix.kind, bytes(header), prefix.body_bytes

    def stat(self, name: ObjectName) -> ObjectVersion:
        self.sock.sendall(encode(Kind.STAT, codec.pack_stat(StatRequest(name))))
        kind = Kind.READ_ANSWER
        while kind is Kind.READ_ANSWER:  # `pending`, while the origin is asked
            kind, header, _ = self._head(bytearray(PREFIX_BYTES))
        answer = codec.unpack_stat_answer(name, codec.parse(cache_pb2.StatAnswer, header))
        assert answer.version is not None
        return answer.version

    def read_into(self, version: ObjectVersion, start: int, view: memoryview) -> None:
        """The bytes from `start` on, as many as the view has room for."""
        request = ReadRequest(version.name, ((start, start + len(view)),), version)
        self.sock.sendall(encode(Kind.READ, codec.pack_read(request, 0)))
        room = bytearray(PREFIX_BYTES)
        while True:
            _, header, body_bytes = self._head(room)
            head = codec.unpack_read_head(version.name, codec.parse(cache_pb2.ReadHeader, header))
            receive_exactly(self.sock, view[:body_bytes])
            view = view[body_bytes:]
            if head.last:
                return

    def close(self) -> None:
        self.sock.close()


class RawHttp:
    """One keep-alive connection of HTTP/1.1, with ranges."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_into(self, path: str, start: int, view: memoryview) -> None:
        end = start + len(view) - 1
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nRange: bytes={start}-{end}\r\n\r\n"
        self.sock.sendall(request.encode())
        head = bytearray(16 << 10)
        filled = 0
        while (border := head.find(b"\r\n\r\n", 0, filled)) < 0:
            count = self.sock.recv_into(memoryview(head)[filled:])
            if count == 0:
                raise ConnectionError("the server hung up")
            filled += count
        if not head.startswith(b"HTTP/1.1 206"):
            raise ConnectionError(f"not a partial answer: {bytes(head[:30])!r}")
        early = filled - border - 4
        view[:early] = head[border + 4 : filled]
        receive_exactly(self.sock, view[early:])

    def close(self) -> None:
        self.sock.close()
