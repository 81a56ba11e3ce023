"""Requests to a gateway byte by byte, over one connection, and which of them took the short way."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from cachesvc.gateway.connection import Connection
from cachesvc.gateway.hits import Hit
from tests.integration.gateway.gate import Gate


class RawAnswer(NamedTuple):
    """head: with its empty line."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    def comparable(self) -> bytes:
        """Without what every answer has of its own."""
        head = re.sub(rb"(?m)^(Date|x-amz-request-id): .*$", b"\\1", self.head)
        return head + re.sub(rb"<RequestId>.*</RequestId>", b"", self.body)


class Raw:
    """One connection to a gateway. receive_bytes: of the client's buffer; None: the system's."""

    def __init__(self, gate: Gate, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(30)
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(gate.address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, wire: bytes) -> None:
        self.socket.sendall(wire)

    def head(self) -> bytes:
        lines = b""
        while not lines.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            assert line, f"it hung up behind {lines!r}"
            lines += line
        return lines

    def answer(self, method: str = "GET") -> RawAnswer:
        """The next one; 100 Continue is one too."""
        head = self.head()
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
        body = b"" if length is None or method == "HEAD" else self._file.read(int(length[1]))
        return RawAnswer(head, body)

    def rest(self) -> bytes:
        """All that comes until the gateway closes."""
        return self._file.read()


def wire(target: str = "/bucket/key", method: str = "GET", **fields: str) -> bytes:
    """A plain request; `_` in the names of its fields is `-`."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Hit]]:
    """The hits that are answered by their connections meanwhile."""
    taken: list[Hit] = []
    answer: Callable[..., Any] = Connection._answer

    def counted(connection: Connection, hit: Hit) -> Any:
        taken.append(hit)
        return answer(connection, hit)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_answer", counted)
        yield taken
