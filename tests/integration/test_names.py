"""A name that is never resolved costs a limit of ours, and one thread, whoever asks for it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cachesvc_client import CacheClient

from cachesvc import names
from cachesvc.core.errors import CacheError, OriginError
from cachesvc.core.types import ObjectName
from cachesvc.origin import signing
from cachesvc.origin.connections import Connections, Endpoint
from cachesvc.origin.s3_client import tls_context
from cachesvc.origin.signing import Signer
from tests.support import until

REAL = socket.getaddrinfo


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Hangs for every name, until the test is over; the names that were looked up."""
    over, asked = threading.Event(), []

    def hang(host: str, port: int, *, type: int = 0, flags: int = 0) -> Any:
        if flags & socket.AI_NUMERICHOST or host[0].isdigit():
            return REAL(host, port, type=type, flags=flags)
        asked.append(host)
        over.wait()
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield asked
    over.set()
    until(lambda: not names._lookups, "all lookups ended")


def test_many_who_ask_for_one_name_wait_for_one_lookup(resolver: list[str]) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError, match=r"slow.test is not resolved after 0.01 s"):
            names.addresses_of("slow.test", 80, 0.01)
    assert resolver == ["slow.test"]


def test_beyond_the_most_lookups_a_new_one_fails_at_once(resolver: list[str]) -> None:
    for number in range(names.MAX_LOOKUPS):
        with pytest.raises(TimeoutError):
            names.addresses_of(f"slow-{number}.test", 80, 0.001)
    with pytest.raises(OSError, match="16 lookups are under way"):
        names.addresses_of("one-more.test", 80, 3600)
    assert names.addresses_of("127.0.0.1", 80, 0)[0][4] == ("127.0.0.1", 80)
    assert names.addresses_of("::1", 80, 0)[0][4][0] == "::1"


def test_a_name_that_there_is_not_is_an_error_of_the_resolver(resolver: list[str]) -> None:
    with pytest.raises(UnicodeError):
        names.addresses_of("a..b" + "x" * 300, 80, 5)


@pytest.mark.parametrize("scheme", ["", "grpc://"])
def test_a_client_gives_up_a_name(resolver: list[str], scheme: str) -> None:
    client = CacheClient(f"{scheme}slow.test:7071", resolve_timeout_ms=10)
    with client, pytest.raises(CacheError, match=r"slow.test is not resolved after 0.01 s"):
        client.ring()


def test_a_node_gives_up_the_name_of_its_origin(
    resolver: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachesvc.origin.connections.RESOLVE_S", 0.01)
    connections = Connections(1000, 1, tls_context(None))
    with pytest.raises(TimeoutError, match=r"slow.test is not resolved after 0.01 s"):
        connections.connect(Endpoint("slow.test", 80, False), lambda _socket: None)


def test_credentials_that_do_not_come_are_an_error_of_the_origin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signing, "SIGN_S", 0.01)

    class Client:
        async def generate_presigned_url(self, *_args: Any, **_options: Any) -> str:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(OriginError, match=r"signed within 0.01 s.*credentials"):
        asyncio.run(Signer(1).url(Client(), ObjectName("b", "k")))
