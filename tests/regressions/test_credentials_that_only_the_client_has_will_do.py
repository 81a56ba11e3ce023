"""A client whose own credentials would do reads on where a node has none, or refused ones.

Story: a node without AWS credentials answered AccessDenied, which the client took as final, though
it could have read the object from S3 itself. Now a node without any is passed over, and one that S3
refuses sends the client to S3.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cachesvc_client import AccessDenied, CacheClient

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster

pytestmark = pytest.mark.slow
DATA = bytes(range(256)) * 4000
NO_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[DevOrigin]:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as one:
        one.put("b", "k", DATA)
        yield one


@contextmanager
def refusing() -> Iterator[str]:
    """An origin that answers everything with 403."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connected, _ = server.accept()
                with connected:
                    connected.recv(1 << 16)
                    connected.sendall(
                        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    )

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def test_a_node_without_credentials_is_passed_over(tmp_path: Path, origin: DevOrigin) -> None:
    with Cluster(tmp_path, origin.url, count=1, environment=NO_CREDENTIALS) as cluster:
        with cluster.client() as client:
            assert client.read("s3://b/k") == DATA
            assert client.stat("s3://b/k").size == len(DATA)
            assert client.sources() == {"direct": len(DATA)}
        with (
            CacheClient(cluster.endpoint, origin={"endpoint_url": "http://127.0.0.1:1"}) as client,
            pytest.raises(OSError, match=r"no AWS credentials were found on this node.*directly"),
        ):
            client.read("s3://b/k")


def test_a_node_that_the_origin_refuses_is_asked_no_more(tmp_path: Path, origin: DevOrigin) -> None:
    with refusing() as url, Cluster(tmp_path, url, count=2) as cluster:
        with CacheClient(cluster.endpoint, origin={"endpoint_url": origin.url}) as client:
            assert client.read("s3://b/k", 10, 1000) == DATA[10:1000]
            assert client.sources() == {"direct": 990}
        with (
            cluster.client() as client,
            pytest.raises(AccessDenied, match=r"403.*reading the origin directly failed.*403"),
        ):
            client.read("s3://b/k")
