"""One connection of the Unix lane, frame by frame, with the descriptors that come."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cachesvc.core.request import ReadRequest
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import PREFIX_BYTES, PROTOCOL_VERSION, Kind, encode, parse_prefix
from cachesvc.wire.v1 import cache_pb2, cluster_pb2
from tests.support import NAME, PATIENCE_S

FILES_BYTES = socket.CMSG_SPACE(300 * 4)


class UnixRaw:
    """A context manager; `greeted` says Hello."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(path))

    def __enter__(self) -> UnixRaw:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def hello(self, token: str = "") -> cluster_pb2.Welcome:
        message = cluster_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION, token=token)
        self.sock.sendall(encode(Kind.HELLO, message.SerializeToString()))
        with self.frame() as (header, _, _):
            return codec.parse(cluster_pb2.Welcome, header)

    def greeted(self) -> UnixRaw:
        codec.raise_error(self.hello().error)
        return self

    def ask(self, *ranges: tuple[int, int | None], **options: bool) -> None:
        request = ReadRequest(NAME, ranges or ((0, None),), descriptors=True, **options)  # type: ignore[arg-type]
        self.sock.sendall(encode(Kind.READ, codec.pack_read(request, 0)))

    @contextmanager
    def frame(self) -> Iterator[tuple[bytes, bytes, list[int]]]:
        """Header, body and files of the next frame; the files are closed at the end."""
        raw, told, flags, _ = self.sock.recvmsg(PREFIX_BYTES, FILES_BYTES)
        assert not flags & socket.MSG_CTRUNC
        files = [one for _, _, data in told for one in memoryview(data).cast("i")]
        try:
            prefix = parse_prefix(raw)
            header = self._receive(prefix.header_bytes)
            yield header, self._receive(prefix.body_bytes), files
        finally:
            for file in files:
                os.close(file)

    @contextmanager
    def head(self) -> Iterator[tuple[ReadHead, bytes, list[int]]]:
        """The next frame of an answer, `pending` ones too."""
        with self.frame() as (header, body, files):
            message = codec.parse(cache_pb2.ReadHeader, header)
            yield codec.unpack_read_head(NAME, message), body, files

    def _receive(self, count_bytes: int) -> bytes:
        return self.sock.recv(count_bytes, socket.MSG_WAITALL) if count_bytes else b""
