"""What a probe's head says beside the version is told, before the version is, or not at all."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

import pytest

from cachesvc.core.errors import ObjectChanged
from cachesvc.core.types import ByteRange, ObjectVersion
from tests.integration.s3_origin.servers import (
    DATA,
    NAME,
    VERSION,
    Request,
    ScriptedServer,
    answer_status,
    head_206,
    opened,
    run,
)
from tests.sinks import ProbeSink


class Listener:
    """Hears fields, and of versions as a node's sink tells them: through the loop."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.fields: dict[str, str] = {}
        self.asked_at = 0.0

    def heard(
        self, version: ObjectVersion, fields: Mapping[str, str], asked_at: float, checksums: bool
    ) -> None:
        assert version == VERSION
        assert not checksums
        self.fields, self.asked_at = dict(fields), asked_at
        self.told.append("fields")


class LoopSink(ProbeSink):
    def __init__(self, listener: Listener) -> None:
        super().__init__(0, len(DATA))
        self._hop = asyncio.get_running_loop().call_soon_threadsafe
        self._told = listener.told

    def found(self, version: ObjectVersion) -> None:
        super().found(version)
        self._hop(self._told.append, "version")


async def _probe(url: str, listener: Listener) -> None:
    async with opened(url, heard=listener.heard) as (origin, _):
        with suppress(ObjectChanged):
            await origin.probe(NAME, ByteRange(0, len(DATA)), LoopSink(listener))
        await asyncio.sleep(0)


def test_fields_are_heard_once_before_the_version_as_of_the_request_that_was_answered() -> None:
    refused_at = 0.0

    def script(request: Request, connected: socket.socket) -> bool:
        nonlocal refused_at
        if request.number == 0:
            refused_at = time.monotonic()
            return answer_status(503, "SlowDown", connected)
        if request.number == 1:
            head = head_206(request, "x-amz-meta-a: b\r\nContent-Type: text/plain\r\n")
            connected.sendall(head + DATA[:300_000])
            return False
        connected.sendall(head_206(request, "x-amz-meta-a: c\r\n") + DATA[request.start :])
        return True

    listener = Listener()
    with ScriptedServer(script) as server:
        run(_probe(server.url, listener))
        assert len(server.requests) == 3
    assert listener.told == ["fields", "version"]
    assert (listener.fields["x-amz-meta-a"], listener.fields["content-type"]) == ("b", "text/plain")
    assert refused_at < listener.asked_at


@pytest.mark.parametrize(
    ("raw", "heard"),
    [
        (b"gr\xc3\xbc\xc3\x9fe", "gr\u00fc\u00dfe"),
        (b"a\tb", "a\tb"),
        (b"", ""),
        (b"gr\xfc\xdfe", None),
        (b"a\nb", None),
        (b"a\0b", None),
    ],
)
def test_fields_are_text_or_left_to_a_head(raw: bytes, heard: str | None) -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        head = head_206(request, "x-amz-meta-a: RAW\r\n").replace(b"RAW", raw)
        connected.sendall(head + DATA)
        return True

    listener = Listener()
    with ScriptedServer(script) as server:
        run(_probe(server.url, listener))
    assert listener.told == (["version"] if heard is None else ["fields", "version"])
    assert listener.fields.get("x-amz-meta-a") == heard


def test_a_probe_that_proves_nothing_tells_no_fields() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        head = head_206(request, "x-amz-meta-a: b\r\n").replace(b'ETag: "', b'ETag: W/"')
        connected.sendall(head + DATA)
        return True

    listener = Listener()
    with ScriptedServer(script) as server:
        run(_probe(server.url, listener))
    assert listener.told == []
