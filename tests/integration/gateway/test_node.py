"""The gateway of a real node: its settings, its numbers, and how it ends."""

from __future__ import annotations

import socket
from pathlib import Path

import boto3
import pytest

from cachesvc.devorigin import DevOrigin
from cachesvc.devorigin.ports import free_ports
from tests.integration.cluster import Cluster
from tests.integration.gateway.gate import ask
from tests.support import pattern, until

DATA = pattern(24 << 20)


def _head(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += connection.recv(1)
    return received


@pytest.mark.slow
def test_a_node_lets_the_answers_of_its_gateway_end_and_exits_with_0(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    (port,) = free_ports(1)
    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("bucket", "key", DATA)
        cluster = Cluster(tmp_path, origin.url, 1, ("--capacity", "64MiB"))
        (node,) = cluster.nodes
        node.options += ("--s3", f"127.0.0.1:{port}")
        with cluster:
            assert ask(f"http://127.0.0.1:{port}")[2] == DATA
            # 200, or `sent`: http.client may hang up before the node has seen that all has left
            until(lambda: node.metric("s3_requests_total") == 1, "it is counted")
            with socket.socket() as slow, socket.create_connection(("127.0.0.1", port)) as idle:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
                slow.settimeout(30)
                slow.connect(("127.0.0.1", port))
                slow.sendall(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
                assert _head(slow).startswith(b"HTTP/1.1 200")
                assert node.child is not None
                node.child.terminate()
                assert idle.recv(1) == b""
                received = bytearray()
                while piece := slow.recv(1 << 20):
                    received += piece
                assert received == DATA
            assert node.child.wait(30) == 0


@pytest.mark.slow
def test_a_node_with_keys_serves_who_signs(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    (tmp_path / "keys").write_text("AKID secret\n")
    (port,) = free_ports(1)
    keys = ("--s3-auth", "sigv4", "--s3-keys", str(tmp_path / "keys"))
    options = ("--capacity", "64MiB", "--s3", f"127.0.0.1:{port}", *keys)
    with DevOrigin(tmp_path / "origin") as origin, Cluster(tmp_path, origin.url, 1, options):
        origin.put("bucket", "key", DATA)
        s3 = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="AKID",
            aws_secret_access_key="secret",
        )
        assert s3.get_object(Bucket="bucket", Key="key")["Body"].read() == DATA
        s3.close()
        assert ask(f"http://127.0.0.1:{port}")[0] == 403
