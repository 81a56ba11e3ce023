"""Making a client does nothing but look at its settings."""

from __future__ import annotations

import threading

import pytest
from cachesvc_client import CacheClient


def test_making_a_client_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    CacheClient("127.0.0.1:1", origin={"endpoint_url": "http://127.0.0.1:1"})
    CacheClient("grpc://127.0.0.1:1")
    assert threading.active_count() == before
    monkeypatch.setenv("CACHESVC_ENDPOINT", "h:1,h:2")
    monkeypatch.setenv("CACHESVC_TOKEN", "secret")
    client = CacheClient()
    assert client.config.endpoints == ("h:1", "h:2")
    assert client.config.token == "secret"
    assert "secret" not in repr(client.config)
    monkeypatch.delenv("CACHESVC_ENDPOINT")
    for endpoint, problem in [
        (None, "CACHESVC_ENDPOINT"),
        ("unix://run/x", "absolute path"),
        ("unix:///" + "x" * 107, "108 bytes, 107 is the most"),
        ("grpc://unix:///run/x", "grpc://"),
        ("h:x", "port"),
        ("http://h:1", "grpc://"),
    ]:
        with pytest.raises(ValueError, match=problem):
            CacheClient(endpoint)
    with pytest.raises(TypeError, match="'silence_ms'"):
        CacheClient("h:1", silence=3)
    with pytest.raises(ValueError, match="endpoint"):
        CacheClient("h:1", origin={"endpoint": "x"})
