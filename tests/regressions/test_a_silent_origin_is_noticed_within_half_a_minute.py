"""An origin that accepts connections and never answers costs a read about 30 s; one that is slow,
8 s to the first byte, is waited for.

Story: node and client tried four times each, for 10 and 20 s, and the client every owner and three
times over: a read took minutes to fail. Now whoever has waited for long begins no new attempt.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from cachesvc_client import CacheClient, OriginError
from cachesvc_client.config import ClientConfig

from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.metrics import Metrics
from cachesvc.origin.s3 import S3Origin, S3Settings
from tests.sinks import BufferSink

NAME = ObjectName("b", "k")


@contextmanager
def silent() -> Iterator[tuple[str, list[socket.socket]]]:
    """An origin that answers nothing, and the connections that it has accepted."""
    server = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def serve() -> None:
        try:
            while True:
                accepted.append(server.accept()[0])
        except OSError:
            return

    thread = Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", accepted
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for one in accepted:
            one.close()


def test_the_limits_add_up_to_half_a_minute_and_leave_time_for_a_slow_origin() -> None:
    node, client = S3Settings(), ClientConfig(("h:1",))
    assert node.read_timeout_ms < node.patience_ms < 2 * node.read_timeout_ms, "two attempts"
    at_the_node_ms = 2 * node.read_timeout_ms
    assert client.origin_patience_ms < at_the_node_ms, "then no other node is asked"
    assert at_the_node_ms + client.origin_silence_ms <= 30_000
    assert client.origin_patience_ms + client.origin_silence_ms <= 30_000
    assert min(node.read_timeout_ms, client.origin_silence_ms) > 8_500


@pytest.mark.parametrize(("patience_ms", "attempts"), [(1, 1), (600_000, 4)])
def test_a_node_asks_a_silent_origin_while_its_patience_lasts(
    patience_ms: int, attempts: int
) -> None:
    async def ask(url: str) -> None:
        metrics = Metrics()
        settings = S3Settings(endpoint_url=url, read_timeout_ms=100, patience_ms=patience_ms)
        origin = S3Origin(settings, metrics)
        try:
            with pytest.raises(OriginError, match="no answer"):
                await origin.head(NAME)
            version = ObjectVersion(NAME, '"e"', 100)
            with pytest.raises(OriginError, match="no bytes for 100 ms"):
                await origin.fetch(version, ByteRange(0, 100), BufferSink(100))
        finally:
            await origin.close()
        for op in ("head", "get"):
            labels = {"op": op, "code": "error"}
            count = metrics.registry.get_sample_value("cachesvc_origin_requests_total", labels)
            assert count == attempts

    with silent() as (url, _):
        asyncio.run(ask(url))


@pytest.mark.parametrize(("patience_ms", "attempts"), [(1, 1), (600_000, 4)])
def test_a_client_asks_a_silent_origin_while_its_patience_lasts(
    patience_ms: int, attempts: int
) -> None:
    with silent() as (url, accepted):
        client = CacheClient(
            "127.0.0.1:1",
            origin={"endpoint_url": url},
            origin_silence_ms=100,
            origin_patience_ms=patience_ms,
        )
        with client, pytest.raises(OriginError, match=r"cannot be reached.*origin failed"):
            client.stat("s3://b/k")
        assert len(accepted) == attempts
