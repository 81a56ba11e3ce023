"""Odd keys are read byte for byte; what is missing, wrong or forbidden is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from cachesvc_client import CacheClient, CacheError, ObjectNotFound

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.integration.promises.sample import random_bytes

pytestmark = pytest.mark.slow

ODD_KEYS = ["a//b", "a/../b", "../up", "/lead", "trail/", "+ %2F%", "ünï/😀", "x" * 1024, "."]


def test_odd_keys_are_read_byte_for_byte(tmp_path: Path, origin: DevOrigin) -> None:
    for number, key in enumerate(ODD_KEYS):
        origin.put("b", key, random_bytes(1000, number))
    origin.put("b", "empty", b"")
    with Cluster(tmp_path, origin.url, count=2) as cluster, cluster.client() as client:
        for number, key in enumerate(ODD_KEYS):
            for _ in range(2):
                assert client.read(f"s3://b/{key}") == random_bytes(1000, number)
        assert client.read("s3://b/empty") == b""
        assert client.read("s3://b/empty", 0, 5) == b""


def test_what_is_missing_or_wrong_is_named(tmp_path: Path, origin: DevOrigin) -> None:
    origin.put("b", "key", b"0123456789")
    with Cluster(tmp_path, origin.url, count=2) as cluster, cluster.client() as client:
        with pytest.raises(FileNotFoundError, match="s3://b/nothing"):
            client.read("s3://b/nothing")
        with pytest.raises(ObjectNotFound, match="s3://nowhere/key"):
            client.stat("s3://nowhere/key")
        for start, end in ((11, None), (-1, 5), (5, 4)):
            with pytest.raises(ValueError, match="s3://b/key"):
                client.read("s3://b/key", start, end)
        assert client.read("s3://b/key", 10) == b""
        assert client.read("s3://b/key", 8, 100) == b"89"
        for uri in ("s3://b/a\0b", "s3://b/", "s3:///k", "http://b/k", f"s3://b/{'x' * 1025}"):
            with pytest.raises(ValueError, match=r"."):
                client.read(uri)


def test_a_token_is_asked_for_on_every_door(tmp_path: Path, origin: DevOrigin) -> None:
    origin.put("b", "key", b"secret bytes")
    token_file = tmp_path / "token"
    token_file.write_text("open sesame\n")
    options = ("--capacity", "64MiB", "--token-file", str(token_file))
    with Cluster(tmp_path, origin.url, count=2, options=options) as cluster:
        for endpoint in (cluster.endpoint, f"grpc://{cluster.nodes[0].grpc}"):
            with CacheClient(endpoint, token="open sesame") as client:
                assert client.read("s3://b/key") == b"secret bytes"
                assert len(client.ring().members) == 2
            for wrong in ("open sesam", None):
                with CacheClient(endpoint, token=wrong) as client, pytest.raises(CacheError):
                    client.ring()
