"""An error answer whose body comes later than its head costs a probe one retry, like any other.

Story: whenever nothing comes for a while, the fill thread lands what has come. It did so for the
body of an error answer, too, before a probe knew how long its object is: the sink took its buffer
for the length asked for, and the retry, which brought a shorter object, failed as a defect.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from cachesvc.core.types import ByteRange, ObjectName
from cachesvc.origin.connections import Connection, Connections, Endpoint
from cachesvc.origin.fetch import Result
from cachesvc.origin.probe import ProbeTransfer
from cachesvc.origin.s3_client import tls_context
from tests.sinks import ProbeSink

BODY = b"0123456789"
LATE = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 4\r\n\r\n", None, b"wait"
RIGHT = (
    b'HTTP/1.1 206 Partial Content\r\nETag: "e"\r\nContent-Length: 10\r\n'
    b"Content-Range: bytes 0-9/10\r\n\r\n" + BODY,
)


class Scripted(socket.socket):
    """Gives what it was told to; None: nothing came for a tick."""

    def __init__(self, answer: tuple[bytes | None, ...]) -> None:
        super().__init__()
        self._answer = list(answer)

    def sendall(self, *_: object) -> None:
        pass

    def recv_into(self, part: memoryview, *_: object) -> int:  # type: ignore[override]
        given = self._answer.pop(0)
        if given is None:
            raise TimeoutError
        part[: len(given)] = given
        return len(given)


class Answering(Connections):
    """Connections that give these answers, one each."""

    def __init__(self, *answers: tuple[bytes | None, ...]) -> None:
        super().__init__(1000, 0, tls_context(None))
        self._answers = list(answers)

    def connect(self, endpoint: Endpoint, hold: Callable[[socket.socket], None]) -> Connection:
        made = Scripted(self._answers.pop(0))
        hold(made)
        return Connection(endpoint, made)


def test_an_error_whose_body_comes_late_costs_a_probe_a_retry() -> None:
    sink = ProbeSink(0, 1 << 20)
    wanted = ByteRange(0, 1 << 20)
    probe = ProbeTransfer(ObjectName("bucket", "key"), wanted, sink, Answering(LATE, RIGHT), 60_000)
    refused = probe.attempt("http://127.0.0.1/bucket/key")
    assert (refused.result, refused.status) == (Result.REFUSED, 503)
    assert not sink.landings
    assert probe.attempt("http://127.0.0.1/bucket/key").result is Result.DONE
    assert bytes(sink.buffer) == BODY
