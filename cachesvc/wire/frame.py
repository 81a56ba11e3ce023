"""Frames of the TCP lane, without any I/O: a fixed prefix, a protobuf header, a raw body.

    prefix, 16 bytes, big endian: magic "CS", kind u8, zero u8, header length u32, body length u64
    header: one message of proto/, by kind
    body: the bytes that the header describes

Story: a connection begins with Hello, answered by Welcome. Then the client sends one Stat, Read or
Forget at a time; a Stat and a Forget are answered by one frame, a Read by one or more ReadAnswer
frames, of which the last says so. Requests have no body.

Rules: every length is bounded before anything is allocated; a decoder that raised is never fed
again. Invariant (fuzzed): whatever way the bytes are cut, the same frames come out, or the same
ProtocolError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from cachesvc.core.errors import ProtocolError

PROTOCOL_VERSION = 2
PREFIX_BYTES = 16
MAX_HEADER_BYTES = 64 << 10
MAX_BODY_BYTES = 256 << 20

_PREFIX = struct.Struct(">2sBBIQ")
_MAGIC = b"CS"


class Kind(IntEnum):
    """What a frame's header is."""

    HELLO = 1
    WELCOME = 2
    STAT = 3
    STAT_ANSWER = 4
    READ = 5
    READ_ANSWER = 6
    FORGET = 7
    FORGET_ANSWER = 8


@dataclass(frozen=True, slots=True)
class Prefix:
    """A checked prefix: what follows it."""

    kind: Kind
    header_bytes: int
    body_bytes: int


def encode(kind: Kind, header: bytes, body_bytes: int = 0) -> bytes:
    """Prefix and header of a frame; the caller sends `body_bytes` bytes behind them."""
    if len(header) > MAX_HEADER_BYTES:
        raise ProtocolError(
            f"a {kind.name} header of {len(header)} bytes; {MAX_HEADER_BYTES} is the most"
        )
    return _PREFIX.pack(_MAGIC, kind, 0, len(header), body_bytes) + header


def parse_prefix(raw: bytes | bytearray | memoryview) -> Prefix:
    """The prefix in the first PREFIX_BYTES of `raw`.

    Raises:
        ProtocolError: this is not our protocol, or beyond its limits.
    """
    magic, kind, zero, header_bytes, body_bytes = _PREFIX.unpack_from(raw)
    if magic != _MAGIC or zero:
        raise ProtocolError(
            f"a frame begins with {bytes(raw[:4])!r}: the other end speaks something else"
        )
    if kind not in Kind._value2member_map_:
        raise ProtocolError(f"frame kind {kind} is unknown to protocol version {PROTOCOL_VERSION}")
    if header_bytes > MAX_HEADER_BYTES:
        raise ProtocolError(
            f"a frame header of {header_bytes} bytes; {MAX_HEADER_BYTES} is the most"
        )
    if body_bytes > MAX_BODY_BYTES:
        raise ProtocolError(f"a frame body of {body_bytes} bytes; {MAX_BODY_BYTES} is the most")
    return Prefix(Kind(kind), header_bytes, body_bytes)


class RequestDecoder:
    """The server's side: bytes in, requests out. held: what was fed and not yet given out, at most
    one frame and what was read beyond it.
    """

    def __init__(self) -> None:
        self.held = bytearray()

    def feed(self, data: bytes) -> None:
        self.held += data

    def next(self) -> tuple[Kind, bytes] | None:
        """The next whole frame's kind and header, or None until more is fed.

        Raises:
            ProtocolError: what was fed is no request.
        """
        if len(self.held) < PREFIX_BYTES:
            if self.held and not _MAGIC.startswith(bytes(self.held[:2])):
                raise ProtocolError(f"the other end speaks something else: {bytes(self.held)!r}")
            return None
        prefix = parse_prefix(self.held)
        if prefix.body_bytes:
            raise ProtocolError(f"a {prefix.kind.name} frame with a body: requests have none")
        end = PREFIX_BYTES + prefix.header_bytes
        if len(self.held) < end:
            return None
        header = bytes(self.held[PREFIX_BYTES:end])
        del self.held[:end]
        return prefix.kind, header
