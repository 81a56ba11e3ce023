"""Plain requests: whatever is taken for one, aiohttp's own parser parses to the same request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cachesvc.gateway.plain import MAX_BYTES, plain

HOST = b"Host: bucket.s3.localhost:8080\r\n"
GET = b"GET /bucket/key HTTP/1.1\r\n" + HOST
HARMLESS = [
    *(b"Range: bytes=0-9", b"range:\tbytes=5- \t", b'If-Match: "a,b"', b"Accept: */*", b"X-Empty:"),
    *(b"Connection: keep-alive", b"connection:Keep-Alive", b"Keep-Alive: timeout=5"),
    *(b"x-amz-date: 20260101T000000Z", b"Authorization: AWS4-HMAC-SHA256 a=b, c=d"),
    *(b"Content-Encoding: gzip", b"X-Odd: Host: y"),
]
TELLING = [
    *(b"Host: x", b"host:x", b"Connection: close", b"Connection: keep-alive, close"),
    *(b"Connection:", b"Proxy-Connection: close", b"Sec-WebSocket-Key1: x", b"Upgrade: websocket"),
    *(b"Content-Length: 0", b"Content-Length: 4", b"Transfer-Encoding: chunked", b"TE: trailers"),
    *(b"Expect: 100-continue", b"Trailer: x", b"A B: c", b"X : y", b": y", b" folded", b"X_Y: 1"),
    *(b"X-Odd: a\rb", b"X-Odd: a\nb", b"X-Odd: a\0b", b"X-Odd: \xc3\xbc", b"X-Odd: \x7f", b"X-Odd"),
]
TARGETS = [
    *(
        b"/",
        b"/b/k",
        b"//b//k",
        b"/b/a%2Fb",
        b"/b/%",
        b"/b/../k",
        b"/b?x-id=GetObject",
        b"/?a?b&&=",
    ),
    *(b"http://h/b/k", b"*", b"/b/\xc3\xbc", b"/b/k#f", b"/b/a b", b"/b/[k]", b"/b/k?=%zz", b"b/k"),
]


class _Parser:
    """aiohttp's, as a connection of the gateway has it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def parse(self, data: bytes) -> list[Any] | None:
        """The requests that the bytes are, with nothing behind them; None: they are none."""
        protocol = BaseProtocol(self._loop)
        parser = HttpRequestParser(
            protocol, self._loop, 1 << 16, max_line_size=16 << 10, max_field_size=16 << 10
        )
        try:
            messages, upgraded, tail = parser.feed_data(data)
        except Exception:
            return None
        assert not upgraded
        assert not tail
        return list(messages)

    def close(self) -> None:
        self._loop.close()


@pytest.fixture(scope="module")
def parser() -> Iterator[_Parser]:
    started = _Parser()
    yield started
    started.close()


def agrees(parser: _Parser, data: bytes) -> bool:
    """Whether the bytes are plain, which aiohttp then has to see as the same request."""
    found = plain(data)
    if found is None:
        return False
    messages = parser.parse(data)
    assert messages is not None, "it is refused"
    ((message, payload),) = messages
    assert (message.method, message.path) == (found.method, found.target)
    assert _folded(message.headers) == _folded(found.headers)
    assert (message.version.major, message.version.minor) == (1, 1)
    assert payload.is_eof(), "it has no body"
    assert not any((message.should_close, message.upgrade, message.chunked))
    return True


def _folded(headers: Any) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers.items()]


def requests() -> st.SearchStrategy[bytes]:
    text = st.text(st.characters(max_codepoint=126), max_size=12)
    names = st.from_regex(rb"[A-Za-z0-9_-]{1,12}", fullmatch=True)
    field = st.one_of(
        st.sampled_from(HARMLESS + TELLING),
        st.builds(lambda n, v: n + b":" + v.encode(), names, text),
    )
    target = st.one_of(
        st.sampled_from(TARGETS), st.binary(max_size=20).map(b"/".__add__), text.map(str.encode)
    )
    return st.builds(
        lambda method, target, version, fields: b"\r\n".join(
            [b" ".join((method, target, version)), *fields, b"", b""]
        ),
        st.sampled_from([b"GET", b"GET", b"HEAD", b"PUT", b"get", b"OPTIONS"]),
        target,
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"]),
        st.lists(field, max_size=6),
    )


@settings(max_examples=500, deadline=None)
@example(GET + b"Proxy-Connection: close\r\n\r\n")
@example(GET + b"Sec-WebSocket-Key1: x\r\n\r\n")
@example(GET + b"".join(b"a%d:\r\n" % number for number in range(128)) + b"\r\n")
@given(requests())
def test_what_is_plain_aiohttp_parses_to_the_same_request(parser: _Parser, data: bytes) -> None:
    agrees(parser, data)


@settings(max_examples=500, deadline=None)
@given(requests(), st.data())
def test_no_part_of_a_request_and_no_damaged_one_is_taken_for_another(
    parser: _Parser, data: bytes, draw: st.DataObject
) -> None:
    cut = draw.draw(st.integers(0, len(data) - 1), "cut")
    assert plain(data[:cut]) is None
    agrees(parser, data[cut:])
    at = draw.draw(st.integers(0, len(data) - 1), "at")
    odd = draw.draw(st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b"\xff", b"\x0b"]))
    agrees(parser, data[:at] + odd + data[at:])
    agrees(parser, data[:at] + odd + data[at + 1 :])
    agrees(parser, data[:at] + data[at + 1 :])


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("target", TARGETS[:8])
def test_what_clients_write_is_plain(parser: _Parser, method: bytes, target: bytes) -> None:
    fields = b"Range:bytes=0-9 \r\nconnection: Keep-Alive\r\nAccept-Encoding: identity\r\n"
    assert agrees(parser, method + b" " + target + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n")


@pytest.mark.parametrize("field", HARMLESS)
def test_a_field_that_is_nothing_special_is_plain(parser: _Parser, field: bytes) -> None:
    assert agrees(parser, GET + field + b"\r\n\r\n")


@pytest.mark.parametrize("field", TELLING)
def test_a_field_that_says_more_is_left_to_aiohttp(field: bytes) -> None:
    assert plain(GET + field + b"\r\n\r\n") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n" + GET + b"\r\n",
        GET + b"\r\n" + GET + b"\r\n",
        GET + b"\r\nbody",
        GET + HOST + b"\r\n",
        GET + b"X: 1\r\nx: 2\r\n\r\n",
        b"GET /bucket/key HTTP/1.1\r\n\r\n",
        b"GET /bucket/key HTTP/1.1\r\nX: Host: y\r\n\r\n",
        GET.replace(b"\r\n", b"\n") + b"\n",
        GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n",
        GET + b"X: " + bytes(MAX_BYTES).replace(b"\0", b"x") + b"\r\n\r\n",
    ],
)
def test_everything_else_is_not(data: bytes) -> None:
    assert plain(data) is None
