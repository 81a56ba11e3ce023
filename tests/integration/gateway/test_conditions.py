"""Conditional requests through the gateway: 304, 412, and which range still counts."""

from __future__ import annotations

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate

PAST, FUTURE = "Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
OTHER = '"00000000000000000000000000000000"'


@pytest.fixture
def head(gate: Gate) -> dict[str, str]:
    return gate.ask(method="HEAD")[1]


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"If-Match": "ETAG"}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": f"{OTHER}, ETAG"}, 200),
        ({"If-Match": "W/ETAG"}, 412),
        ({"If-Match": OTHER}, 412),
        ({"If-Match": OTHER, "Range": "bytes=0-9"}, 412),
        ({"If-Match": OTHER, "Range": "bytes=99999999-"}, 412),
        ({"If-None-Match": "ETAG"}, 304),
        ({"If-None-Match": "W/ETAG"}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": OTHER}, 200),
        ({"If-None-Match": OTHER, "Range": "bytes=0-9"}, 206),
        ({"If-None-Match": "ETAG", "Range": "bytes=0-9"}, 304),
        ({"If-Modified-Since": "MODIFIED"}, 304),
        ({"If-Modified-Since": PAST}, 200),
        ({"If-Modified-Since": FUTURE}, 304),
        ({"If-Modified-Since": "Mon Jan  1 00:00:00 2001"}, 200),
        ({"If-Unmodified-Since": "Mon Jan  1 00:00:00 2001"}, 412),
        ({"If-Unmodified-Since": "Monday, 01-Jan-01 00:00:00 GMT"}, 412),
        ({"If-Modified-Since": "no date"}, 200),
        ({"If-Unmodified-Since": "MODIFIED"}, 200),
        ({"If-Unmodified-Since": PAST}, 412),
        ({"If-Match": "ETAG", "If-Unmodified-Since": PAST}, 200),
        ({"If-None-Match": OTHER, "If-Modified-Since": "MODIFIED"}, 200),
        ({"If-None-Match": "ETAG", "If-Modified-Since": PAST}, 304),
        ({"If-Match": OTHER, "If-None-Match": "ETAG"}, 412),
        ({"If-Range": "ETAG", "Range": "bytes=0-9"}, 206),
        ({"If-Range": OTHER, "Range": "bytes=0-9"}, 200),
        ({"If-Range": OTHER, "Range": "bytes=99999999-"}, 200),
        ({"If-Range": "W/ETAG", "Range": "bytes=0-9"}, 200),
        ({"If-Range": "MODIFIED", "Range": "bytes=0-9"}, 206),
        ({"If-Range": PAST, "Range": "bytes=0-9"}, 200),
        ({"If-Range": FUTURE, "Range": "bytes=0-9"}, 200),
    ],
)
def test_a_condition_decides(
    gate: Gate, head: dict[str, str], conditions: dict[str, str], status: int
) -> None:
    filled = {
        name: value.replace("ETAG", head["etag"]).replace("MODIFIED", head["last-modified"])
        for name, value in conditions.items()
    }
    for method in ("GET", "HEAD"):
        got, headers, body = gate.ask(method=method, headers=filled)
        assert got == status
        if status in (200, 206, 304):
            assert headers["etag"] == head["etag"]
        if method == "GET":
            expected = {200: DATA, 206: DATA[:10], 304: b""}
            assert body == expected[status] if status in expected else b"<Condition>If-" in body


def test_a_304_has_no_body_and_leaves_the_connection_usable(
    gate: Gate, origin: DevOrigin, head: dict[str, str]
) -> None:
    with gate.connect() as connection:
        wire = f"GET /bucket/key HTTP/1.1\r\nHost: x\r\nIf-None-Match: {head['etag']}\r\n\r\n"
        for _ in range(2):
            connection.sendall(wire.encode())
            answer = connection.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 304")
            assert answer.endswith(b"\r\n\r\n")
            assert b"content-length" not in answer.lower()
