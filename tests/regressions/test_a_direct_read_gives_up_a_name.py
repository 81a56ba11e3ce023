"""A direct read fails when the origin's name is not resolved in time.

Story: the node's fill threads resolved names within 5 s, as the table of failures says; the
client's direct reads left it to the system's resolver, which has no limit of ours.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from cachesvc_client import fallback
from cachesvc_client.effects import AskOrigin
from cachesvc_client.fallback import Fallback

from cachesvc import names
from cachesvc.core.errors import OriginError
from tests.support import NAME, until

REAL = socket.getaddrinfo


@pytest.mark.parametrize("proxy", [False, True])
def test_a_direct_read_gives_up_a_name(monkeypatch: pytest.MonkeyPatch, proxy: bool) -> None:
    over = threading.Event()

    def hang(host: str, *settings: Any, **named: Any) -> Any:
        if host == "origin.test" and named.get("flags") != socket.AI_NUMERICHOST:
            over.wait()
        return REAL(host, *settings, **named)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(fallback, "RESOLVE_S", 0.01)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    if proxy:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    else:
        monkeypatch.delenv("http_proxy", raising=False)
    direct = Fallback(
        {
            "endpoint_url": "http://origin.test:9",
            "aws_access_key_id": "a",
            "aws_secret_access_key": "b",
        },
        1,
        9000,
    )
    why = "127.0.0.1:1" if proxy else r"origin.test is not resolved after 0.01 s"
    try:
        with pytest.raises(OriginError, match=why):
            direct.ask(AskOrigin(NAME, None, patience_s=0))
    finally:
        over.set()
        direct.close()
    until(lambda: not names._lookups, "all lookups ended")


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://origin.test:9", r"the origin http://origin\.test:9 failed: "),
        (None, r"the origin https://s3\S*\.amazonaws\.com \(AWS: neither endpoint_url nor "),
    ],
)
def test_an_origin_that_no_name_leads_to_is_named(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, said: str
) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for each in "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "http_proxy", "https_proxy":
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    direct = Fallback({**keys, **({"endpoint_url": endpoint} if endpoint else {})}, 1, 9000)
    try:
        with pytest.raises(OriginError, match=said):
            direct.ask(AskOrigin(NAME, None, patience_s=0))
    finally:
        direct.close()
