"""The numbers of protobuf's wire form, by hand. Pure."""

from __future__ import annotations

from cachesvc.core.errors import ProtocolError


def pack_varint(number: int) -> bytes:
    """A number from 0 on, in as few bytes as it takes."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(raw: bytes, position: int) -> tuple[int, int]:
    """The number that begins at `position`, and where it ends.

    Raises:
        ProtocolError: it is cut short, or has no end.
    """
    number = 0
    for shift in range(0, 64, 7):
        if position >= len(raw):
            raise ProtocolError("a number that was cut short")
        byte = raw[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ProtocolError("a number without an end")
