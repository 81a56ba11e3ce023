"""Asking the development origin over real sockets, so that every lie is visible.

Raw answers are read by http.client and by bare sockets, so that no client library mends what a
fault broke; boto3 proves that a real SDK is content.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
from urllib.parse import urlsplit

from cachesvc.devorigin import DevOrigin

DATA = bytes(range(256)) * 1000
ETAG = f'"{hashlib.md5(DATA).hexdigest()}"'

NASTY_KEYS = [
    "plain.txt",
    "a/b/c.bin",
    "a",
    "a/b",
    "a/",
    "a//b",
    "/leading",
    "//two",
    "/",
    "..",
    "../escape",
    "a/../../../../escape",
    ".",
    "./x/.",
    "with space + plus",
    "100%/%2F/%252e",
    "grüße/日本語/😀",
    "e\u0301 is not \u00e9",
    "?query=no&#fragment",
    "back\\slash",
    "quote'\"<xml>&amp;",
    "tab\tnew\nline\x01\x7f",
    ".devorigin/tmp/x",
    ".devorigin/a=",
    "~tilde*star|pipe;semi,comma=equals:colon@at",
    "c" * 300 + "/x",
    "k" * 1024,
    "ü" * 512,
    "d/" * 511 + "e",
    "%" * 1024,
    "." * 1024,
]


Reply = tuple[int, dict[str, str], bytes]


def ask(
    origin: DevOrigin,
    method: str = "GET",
    target: str = "/bucket/key",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Reply:
    connection = http.client.HTTPConnection(urlsplit(origin.url).netloc, timeout=30)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, response.read()
    finally:
        connection.close()


def raw(origin: DevOrigin, request: bytes) -> tuple[bytes, bytes, bool]:
    """Head and body as they came until the connection ended, and whether it ended by a reset."""
    received = b""
    reset = False
    parts = urlsplit(origin.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(request)
        while True:
            try:
                data = connection.recv(1 << 20)
            except ConnectionResetError:
                reset = True
                break
            if not data:
                break
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body, reset


def raw_get(span: str | None = None, key: str = "key", close: bool = True) -> bytes:
    lines = [f"GET /bucket/{key} HTTP/1.1", "Host: x"]
    lines += [f"Range: bytes={span}"] if span else []
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode()


def header(head: bytes, name: str) -> str | None:
    for line in head.decode().split("\r\n")[1:]:
        left, _, right = line.partition(": ")
        if left.lower() == name.lower():
            return right
    return None
