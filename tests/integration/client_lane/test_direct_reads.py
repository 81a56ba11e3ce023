"""Without any node the client reads the origin itself."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest
from cachesvc_client import CacheClient

from cachesvc.core.errors import CacheError
from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.devorigin.faults import KINDS
from tests.integration.client_lane.sample import DATA, URI

BIG = random.Random(12).randbytes(18 << 20)


def direct(origin: DevOrigin) -> CacheClient:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return CacheClient("127.0.0.1:1", origin={"endpoint_url": origin.url, **keys})


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevOrigin]:
    with DevOrigin(tmp_path_factory.mktemp("origin")) as made:
        made.put("b", "k", DATA)
        made.put("b", "big", BIG)
        yield made
        made.faults = []


@pytest.mark.slow  # botocore waits before it tries again
@pytest.mark.parametrize("kind", sorted(KINDS - {"stall", "slow_first_byte", "no_etag"}))
def test_an_origin_that_lies_once_is_asked_again(origin: DevOrigin, kind: str) -> None:
    method = "*" if kind in ("etag_change", "weak_etag") else "GET"
    origin.faults = [Fault(kind, method, count=1)]
    with direct(origin) as client:
        found = client.read(URI, 1000, 200_000)
        assert found == DATA[1000:200_000] or kind == "etag_change"  # a version of its own
        origin.faults = [Fault(kind, method, count=1)]
        assert client.read("s3://b/big", 5) == BIG[5:]
    origin.faults = []


@pytest.mark.parametrize("kind", ["no_etag", "weak_etag"])
def test_an_origin_without_strong_etags_is_read_in_single_gets(
    origin: DevOrigin, kind: str
) -> None:
    origin.faults = [Fault(kind, "*")]
    origin.clear_log()
    with direct(origin) as client:
        assert client.read("s3://b/big", 5) == BIG[5:]
        assert client.read_ranges("s3://b/big", [(9, 12), (12 << 20, (12 << 20) + 5)]) == [
            BIG[9:12],
            BIG[12 << 20 : (12 << 20) + 5],
        ]
    origin.faults = []
    assert sum(one.method == "GET" for one in origin.requests) == 2


def test_odd_keys_reach_the_origin_as_they_are(origin: DevOrigin) -> None:
    keys = ["..", "a//b", "../escape", "a/../../x", "100%/%2F", "grüße/日本", "?q=1#f", "a/", " +"]
    with direct(origin) as client:
        for key in keys:
            origin.put("b", key, key.encode())
            assert client.read(f"s3://b/{key}") == key.encode()


def test_without_credentials_the_error_says_how_to_give_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    client = CacheClient("127.0.0.1:1", origin={"endpoint_url": "http://127.0.0.1:1"})
    with client, pytest.raises(CacheError, match=r"cannot be reached.*aws_access_key_id"):
        client.read(URI)


def test_without_botocore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    said = r"cannot be reached.*pip install '\.\[s3\]'"
    with CacheClient("127.0.0.1:1") as client, pytest.raises(CacheError, match=said):
        client.read(URI)
