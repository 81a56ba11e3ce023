"""Writes through the gateway: streamed to the origin, and the node forgets what it knew."""

from __future__ import annotations

import http.client
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cachesvc.devorigin import DevOrigin, Fault
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate
from tests.support import pattern

NEWER = pattern(700_000, seed=7)


def test_a_write_is_seen_by_the_next_read(gate: Gate) -> None:
    assert gate.ask()[2] == DATA
    status, headers, _ = gate.ask(method="PUT", body=NEWER)
    assert (status, headers["x-cache"]) == (200, "BYPASS")
    assert gate.ask()[2] == NEWER
    assert gate.ask(method="DELETE")[0] == 204
    assert gate.ask()[0] == 404
    assert gate.ask(method="PUT", body=DATA)[0] == 200
    assert gate.ask()[2] == DATA


def test_a_body_of_unknown_length_is_passed(gate: Gate) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(NEWER), 100_000):
            yield NEWER[start : start + 100_000]

    assert gate.ask(method="PUT", body=pieces())[0] == 200
    assert gate.ask()[2] == NEWER


def test_an_empty_body_makes_an_empty_object(gate: Gate) -> None:
    assert gate.ask("/bucket/empty", "PUT", body=b"")[0] == 200
    assert gate.ask("/bucket/empty")[::2] == (200, b"")


def aws_chunks(data: bytes, size: int, extension: str, trailer: str) -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)] + [b""]
    body = b""
    for piece in pieces:
        body += b"%x%s\r\n" % (len(piece), extension.encode())
        body += piece + (b"\r\n" if piece else b"")
    return body + trailer.encode() + b"\r\n"


@pytest.mark.parametrize(
    ("kind", "extension", "trailer"),
    [
        ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", "", "x-amz-checksum-crc32:AAAAAA==\r\n"),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", f";chunk-signature={'0' * 64}", ""),
        (
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            f";chunk-signature={'0' * 64}",
            f"x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:{'0' * 64}\r\n",
        ),
    ],
)
@pytest.mark.parametrize("data", [NEWER, b"x", b""])
def test_an_aws_chunked_body_arrives_as_its_data(
    gate: Gate, kind: str, extension: str, trailer: str, data: bytes
) -> None:
    headers = {
        "x-amz-content-sha256": kind,
        "x-amz-decoded-content-length": str(len(data)),
        "Content-Encoding": "aws-chunked",
    }
    body = aws_chunks(data, 65_536, extension, trailer)
    status, _, answer = gate.ask(method="PUT", headers=headers, body=body)
    assert (status, answer) == (200, b"")
    assert gate.ask()[2] == data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"5\r\nabc",
        b"zz\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"a" * 20_000,
    ],
)
def test_a_malformed_aws_chunked_body_writes_nothing(gate: Gate, body: bytes) -> None:
    headers = {
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "x-amz-decoded-content-length": "5",
    }
    status, _, answer = gate.ask(method="PUT", headers=headers, body=body)
    assert (status, b"<Code>IncompleteBody</Code>" in answer) == (400, True)
    assert gate.ask()[2] == DATA


def test_a_client_that_leaves_in_mid_body_writes_nothing(gate: Gate, origin: DevOrigin) -> None:
    with gate.connect() as connection:
        connection.sendall(b"PUT /bucket/key HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
        connection.sendall(NEWER[:500_000])
    assert gate.ask()[2] == DATA


def test_a_client_that_waits_for_100_continue_is_invited(gate: Gate) -> None:
    with gate.connect() as connection:
        connection.sendall(
            b"PUT /bucket/key HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert _line(connection).startswith(b"HTTP/1.1 100")
        connection.sendall(b"abc")
        assert b"HTTP/1.1 200" in connection.recv(1 << 16)
    assert gate.ask()[2] == b"abc"


def test_who_waits_with_an_empty_body_is_invited_too(gate: Gate) -> None:
    """The command line of AWS takes an answer that comes at once for one to its next request."""
    with gate.connect() as connection:
        for key in ("empty", "empty-too"):
            connection.sendall(
                f"PUT /bucket/{key} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n".encode()
                + b"Expect: 100-continue\r\n\r\n"
            )
            assert _line(connection).startswith(b"HTTP/1.1 100")
            assert _line(connection).startswith(b"HTTP/1.1 200")
    assert gate.ask("/bucket/empty-too")[::2] == (200, b"")


def test_who_is_refused_before_it_is_invited_is_hung_up_on(gate: Gate) -> None:
    with gate.connect() as connection:
        connection.sendall(
            b"PUT /bucket?lifecycle HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 501")
    assert b"connection: close" in answer.lower()


def _line(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += connection.recv(1)
    return received


def test_what_is_not_understood_is_501_by_name(gate: Gate, origin: DevOrigin) -> None:
    before = len(origin.requests)
    for method, target, name in [
        ("GET", "/bucket/key?acl", b"GetObjectAcl"),
        ("PUT", "/bucket?lifecycle", b"PutBucketLifecycle"),
        ("POST", "/bucket/key?select&select-type=2", b"SelectObjectContent"),
        ("PATCH", "/bucket/key", b"PATCH of an object"),
    ]:
        status, _, body = gate.ask(target, method)
        assert (status, b"<Code>NotImplemented</Code>" in body, name in body) == (501, True, True)
    assert len(origin.requests) == before


def test_an_origin_that_refuses_a_write_is_heard(gate: Gate, origin: DevOrigin) -> None:
    origin.faults = [Fault("503", method="PUT")]
    status, _, body = gate.ask(method="PUT", body=NEWER)
    assert (status, b"<Code>SlowDown</Code>" in body) == (503, True)
    origin.stop()
    status, _, body = gate.ask(method="PUT", body=NEWER)
    assert (status, b"<Code>ServiceUnavailable</Code>" in body) == (503, True)


def test_a_head_under_way_while_an_object_is_written_is_not_believed_after(
    gate: Gate, origin: DevOrigin
) -> None:
    """See tests/unit/test_versions.py for the moment itself."""
    gate.ask(method="HEAD")
    heads = len([one for one in origin.requests if one.operation == "HeadObject"])
    gate.ask(method="PUT", body=NEWER)
    gate.ask(method="HEAD")
    assert len([one for one in origin.requests if one.operation == "HeadObject"]) == heads + 1


def test_memory_stays_bounded_while_a_large_body_passes(
    gate: Gate, origin: DevOrigin, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        connection = http.client.HTTPConnection(urlsplit(gate.url).netloc, timeout=60)
        with big.open("rb") as file:
            connection.request(
                "PUT", "/bucket/big", body=file, headers={"Content-Length": str(64 << 20)}
            )
            assert connection.getresponse().status == 200
        connection.close()
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert gate.ask("/bucket/big", "HEAD")[1]["content-length"] == str(64 << 20)
