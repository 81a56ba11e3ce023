"""HTTP itself at the gateway: old versions, and targets in absolute form."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from xml.etree import ElementTree

import pytest

from cachesvc.devorigin import DevOrigin
from cachesvc.gateway.assembly import GatewaySettings
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate, gateway_over

LISTING = b"<ListBucketResult/>"


class _Chunking(BaseHTTPRequestHandler):
    """An origin whose answers have no length, as S3's listings have none."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(LISTING), LISTING))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def chunking() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Chunking) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _answer(gate: Gate, wire: bytes) -> bytes:
    """All that comes until the gateway closes."""
    received = b""
    with gate.connect() as connection:
        connection.sendall(wire)
        while piece := connection.recv(1 << 16):
            received += piece
    return received


def test_an_answer_without_a_length_reaches_a_client_of_http_1_0(
    chunking: str, tmp_path: Path
) -> None:
    with gateway_over(chunking, tmp_path) as gate:
        answer = _answer(gate, b"GET /bucket?list-type=2 HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 200")
        assert answer.partition(b"\r\n\r\n")[2] == LISTING
        assert gate.ask("/bucket?list-type=2")[2] == LISTING


def test_an_object_is_read_by_http_1_0(gate: Gate) -> None:
    for _ in ("cold", "warm"):
        answer = _answer(gate, b"GET /bucket/key HTTP/1.0\r\n\r\n")
        assert answer.partition(b"\r\n\r\n")[2] == DATA


@pytest.mark.parametrize(
    "target",
    ["http://bucket.s3.localhost/key", "http://another.s3.localhost/key", "https://x/key?x-id=Get"],
)
def test_a_target_in_absolute_form_is_of_the_bucket_that_host_names(
    origin: DevOrigin, tmp_path: Path, target: str
) -> None:
    settings = GatewaySettings(domain="s3.localhost")
    (tmp_path / "node").mkdir()
    with gateway_over(origin.url, tmp_path / "node", settings=settings) as gate:
        wire = f"GET {target} HTTP/1.1\r\nHost: bucket.s3.localhost:80\r\nConnection: close\r\n\r\n"
        assert _answer(gate, wire.encode()).partition(b"\r\n\r\n")[2] == DATA


def test_a_presigned_parameter_asks_for_checksums_from_the_cache(
    gate: Gate, origin: DevOrigin
) -> None:
    target = "/bucket/key?X-Amz-Content-Sha256=UNSIGNED-PAYLOAD&x-amz-checksum-mode=ENABLED"
    assert gate.ask(target)[2] == DATA
    before = len(origin.requests)
    _, headers, body = gate.ask(target)
    assert (body, headers["x-cache"]) == (DATA, "HIT")
    assert len(origin.requests) == before


@pytest.mark.parametrize(
    "wire",
    [
        b"get /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /bucket/key HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 40_000 + b"\r\n",
        b"PUT /bucket/new HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x00\xf0<&\x00\r\n\r\n",
    ],
)
def test_what_is_no_request_is_an_error_of_s3s_and_no_noise(
    gate: Gate, wire: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head, _, body = _answer(gate, wire).partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert b"content-type: application/xml" in head.lower()
    assert ElementTree.fromstring(body).findtext("Code") == "BadRequest"
    assert not caplog.records
    assert gate.ask()[::2] == (200, DATA)
