"""What a cold GET says beside the bytes: what the origin itself says to the same request, also
where that is another S3 than ours; and what it leaves behind when it goes wrong.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.integration.gateway.gate import Gate, Reply, ask, gateway_over
from tests.integration.s3_origin.servers import (
    DATA,
    ETAG,
    Request,
    ScriptedServer,
    answer_right,
    answer_status,
    head_206,
)
from tests.moto_server import running_moto
from tests.support import pattern, until

SMALL = pattern(50_000, seed=8)
FIELDS = {
    "ContentType": "text/x-test",
    "CacheControl": "max-age=5",
    "ContentDisposition": 'attachment; filename="a b"',
    "ContentEncoding": "gzip",
    "ContentLanguage": "de",
    "Metadata": {"color": "blue", "path": "a/b c"},
    "ChecksumAlgorithm": "CRC32",
}
MODE = {"x-amz-checksum-mode": "ENABLED"}
# Of one answer and not of the object.
PASSING = {"date", "server", "connection", "x-amz-request-id", "x-cache", "x-cache-node"}
PASSING |= {"x-amzn-requestid", "access-control-allow-origin"}


@dataclass
class Place:
    """Somebody else's S3, and a gateway before it."""

    url: str
    gate: Gate
    s3: Any

    def put(self, key: str) -> None:
        self.s3.put_object(Bucket="bucket", Key=key, Body=SMALL, **FIELDS)

    def both(self, key: str, headers: dict[str, str]) -> tuple[Reply, Reply]:
        """The origin's own answer, and the gateway's."""
        target = f"/bucket/{key}"
        request = AWSRequest("GET", self.url + target, dict(headers))
        S3SigV4Auth(Credentials("key", "secret"), "s3", "us-east-1").add_auth(request)
        signed = dict(request.headers.items())
        return ask(self.url, target, headers=signed), self.gate.ask(target, headers=headers)

    def asked(self) -> tuple[int, int]:
        """HEADs and GETs that the origin answered."""
        answered = [
            sum(self.gate.count("origin_requests_total", op=op, code=code) for code in codes)
            for op, codes in (("head", ("200",)), ("get", ("200", "206")))
        ]
        return int(answered[0]), int(answered[1])


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with running_moto() as url:
        yield url


@pytest.fixture
def place(moto: str, tmp_path: Path) -> Iterator[Place]:
    assert ask(moto, "/moto-api/reset", "POST")[0] == 200
    s3 = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    s3.create_bucket(Bucket="bucket")
    with gateway_over(moto, tmp_path) as gate:
        yield Place(moto, gate, s3)
    s3.close()


def differing(origin: Reply, gateway: Reply) -> set[str]:
    names = (origin[1].keys() | gateway[1].keys()) - PASSING
    found = {name for name in names if origin[1].get(name) != gateway[1].get(name)}
    found |= {"status"} if origin[0] != gateway[0] else set()
    return found | ({"body"} if origin[2] != gateway[2] else set())


@pytest.mark.parametrize("span", [None, "0-", "0-0", "5-99", "49999-", "5-999999"])
@pytest.mark.parametrize("mode", [{}, MODE])
def test_a_cold_get_tells_what_the_origin_tells(
    place: Place, span: str | None, mode: dict[str, str]
) -> None:
    place.put("key")
    headers = mode if span is None else {**mode, "Range": f"bytes={span}"}
    whole_with_checksums = bool(mode) and span is None
    for _ in ("cold", "warm"):
        found = differing(*place.both("key", headers))
        assert found <= ({"x-amz-checksum-crc32"} if span == "0-" else set())
        until(place.gate.quiet, "it is stored and counted")
        assert place.asked() == (int(whole_with_checksums), 1)


def test_checksums_cost_one_head_once_they_are_asked_for(place: Place) -> None:
    place.put("key")
    assert place.gate.ask("/bucket/key")[2] == SMALL
    until(place.gate.quiet, "it is stored and counted")
    assert place.asked() == (0, 1)
    head = place.s3.head_object(Bucket="bucket", Key="key", ChecksumMode="ENABLED")
    for number in range(4):
        method = "HEAD" if number % 2 else "GET"
        told = place.gate.ask("/bucket/key", method, MODE)[1]
        assert told["x-amz-checksum-crc32"] == head["ChecksumCRC32"]
        assert "x-amz-checksum-crc32" not in place.gate.ask("/bucket/key", method)[1]
    assert place.asked() == (1, 1)


def test_an_overwrite_before_the_first_byte_is_looked_up_again(tmp_path: Path) -> None:
    """The version is known, its bytes are cut off, and then it is gone."""
    asked: list[str] = []

    def script(request: Request, connected: socket.socket) -> bool:
        asked.append(request.method)
        if len(asked) == 1:
            connected.sendall(head_206(request).replace(ETAG.encode(), b'"older"')[:-2])
            connected.sendall(b"x-amz-meta-of: older\r\n\r\n")
            return False
        if '"older"' in request.head:
            return answer_status(412, "PreconditionFailed", connected)
        return answer_right(request, connected)

    with ScriptedServer(script) as server, gateway_over(server.url, tmp_path) as gate:
        status, headers, body = gate.ask(headers={"Range": "bytes=0-99"})
    assert (status, headers["etag"], body == DATA[:100]) == (206, ETAG, True)
    assert "x-amz-meta-of" not in headers
    assert asked[:3] == ["GET", "GET", "HEAD"]


@pytest.mark.parametrize("said", [False, True])
def test_a_client_that_leaves_before_the_first_byte_leaves_nothing_behind(
    tmp_path: Path, said: bool
) -> None:
    reached, left = threading.Event(), threading.Event()

    def script(request: Request, connected: socket.socket) -> bool:
        if said:
            connected.sendall(head_206(request))
        reached.set()
        connected.recv(1)  # until the node hangs up
        left.set()
        return False

    with ScriptedServer(script) as server, gateway_over(server.url, tmp_path) as gate:
        with gate.connect() as connection:
            connection.sendall(
                b"GET /bucket/key HTTP/1.1\r\nHost: x\r\nRange: bytes=0-700000\r\n\r\n"
            )
            assert reached.wait(30)
        assert left.wait(30)
        until(gate.quiet, "nothing is pinned, flying or buffered any more")
        assert [one.method for one in server.requests] == ["GET"]
