"""An origin over TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from cachesvc.core.errors import OriginError
from cachesvc.core.types import ByteRange
from tests.integration.s3_origin.servers import (
    DATA,
    NAME,
    VERSION,
    Request,
    ScriptedServer,
    answer_right,
    fetched,
    head_206,
    opened,
    run,
    value,
)
from tests.sinks import BufferSink


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that signs itself, and a server's context with it."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-subj", "/CN=origin of a test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def test_https_with_an_authority_from_aws_ca_bundle(
    authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = authority
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))

    def script(request: Request, connected: socket.socket) -> bool:
        if request.number == 2:  # a TLS connection that is cut
            connected.sendall(head_206(request) + DATA[request.start : request.end][:300_000])
            return False
        return answer_right(request, connected)

    async def main(url: str) -> None:
        async with opened(url) as (origin, metrics):
            version = await origin.head(NAME)
            await fetched(origin, 10, 20, version)
            await fetched(origin, 0, len(DATA), version)
            await fetched(origin, len(DATA) - 1, len(DATA), version)
            assert value(metrics, "retries") == 1

    with ScriptedServer(script, context) as server:
        run(main(server.url))
        ranges = [(request.start, request.connection) for request in server.requests[1:]]
        assert ranges == [(10, 2), (0, 2), (300_000, 3), (len(DATA) - 1, 3)]


def test_cancelling_a_fetch_over_tls_lands_no_cipher_text(
    authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = authority
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    done = threading.Event()

    def script(request: Request, connected: socket.socket) -> bool:
        connected.sendall(head_206(request) + DATA[request.start : request.end][:300_000])
        done.wait()
        return False

    async def main(url: str) -> None:
        async with opened(url, read_timeout_ms=600_000) as (origin, _):
            sink = BufferSink(len(DATA))
            fetch = asyncio.create_task(origin.fetch(VERSION, ByteRange(0, len(DATA)), sink))
            await asyncio.to_thread(sink.first.wait)
            fetch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetch
            assert sink.buffer[: sink.count_bytes] == DATA[: sink.count_bytes]
            assert not any(sink.buffer[300_000:])
            sink.free()

    with ScriptedServer(script, context) as server:
        run(main(server.url))
        done.set()


def test_https_with_an_unknown_authority_is_refused(
    authority: tuple[Path, ssl.SSLContext],
) -> None:
    async def main(url: str) -> None:
        async with opened(url, attempts=1) as (origin, _):
            with pytest.raises(OriginError, match="certificate verify failed"):
                await fetched(origin, 0, 1000)

    with ScriptedServer(answer_right, authority[1]) as server:
        run(main(server.url))
