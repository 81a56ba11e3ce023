"""What a bad node may do: each sends, or not, to a client that asked for [0, len(DATA))."""

from __future__ import annotations

import socket

from cachesvc.core.blocks import cuts
from cachesvc.core.errors import Overloaded
from cachesvc.core.format import checksum
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectVersion, Source
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc.wire.frame import MAX_BODY_BYTES, Kind, encode
from tests.integration.client_lane.fake_node import Behaviour, Session, honest
from tests.integration.client_lane.sample import DATA, NAME, PAGE, VERSION, answer, segment


def flipped_byte(session: Session, request: ReadRequest) -> None:
    body = bytearray(DATA)
    body[200_000] ^= 1
    session.send(answer(ReadHead((segment(0, len(DATA)),), VERSION, last=True), bytes(body)))


def no_checksums(session: Session, request: ReadRequest) -> None:
    head = SegmentHead(0, len(DATA), Source.DISK, b"")
    session.send(answer(ReadHead((head,), VERSION, last=True), DATA))


def unchecked_bypass(session: Session, request: ReadRequest) -> None:
    head = SegmentHead(0, len(DATA), Source.BYPASS, b"")
    session.send(answer(ReadHead((head,), VERSION, last=True), b"?" * len(DATA)))


def short_answer(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, 1000),), VERSION, last=True), DATA[:1000]))


def no_bytes_at_all(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((), VERSION, last=True), b""))


def too_long(session: Session, request: ReadRequest) -> None:
    longer = DATA + b"x"
    head = SegmentHead(0, len(longer), Source.DISK, b"".join(
        checksum(longer[s:e]) for s, e in cuts(0, len(longer), PAGE)
    ))  # fmt: skip
    session.send(answer(ReadHead((head,), VERSION, last=True), longer))


def reordered(session: Session, request: ReadRequest) -> None:
    heads = segment(100_000, len(DATA)), segment(0, 100_000)
    session.send(answer(ReadHead(heads, VERSION, last=True), DATA[100_000:] + DATA[:100_000]))


def overlapping(session: Session, request: ReadRequest) -> None:
    heads = segment(0, 100_000), segment(90_000, len(DATA))
    session.send(answer(ReadHead(heads, VERSION, last=True), DATA[:100_000] + DATA[90_000:]))


def body_unlike_header(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, 1000),), VERSION), DATA[:1001]))


def oversized_frame(session: Session, request: ReadRequest) -> None:
    head = ReadHead((SegmentHead(0, MAX_BODY_BYTES + 1, Source.DISK, b""),), VERSION)
    session.send(answer(head, b"", MAX_BODY_BYTES + 1))


def oversized_header(session: Session, request: ReadRequest) -> None:
    session.send(b"CS\x06\x00" + (1 << 30).to_bytes(4, "big") + bytes(8))


def no_frame(session: Session, request: ReadRequest) -> None:
    session.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def no_protobuf(session: Session, request: ReadRequest) -> None:
    session.send(encode(Kind.READ_ANSWER, b"\xff" * 20))


def wrong_kind(session: Session, request: ReadRequest) -> None:
    session.send(encode(Kind.WELCOME, b""))


def two_versions(session: Session, request: ReadRequest) -> None:
    other = ObjectVersion(NAME, '"other"', len(DATA))
    session.send(answer(ReadHead((segment(0, 1000),), VERSION), DATA[:1000]))
    session.send(answer(ReadHead((segment(1000, 2000),), other), DATA[1000:2000]))


def no_version(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, len(DATA)),), last=True), DATA))


def goes_on_after_the_end(session: Session, request: ReadRequest) -> None:
    honest(session, request)
    session.send(answer(ReadHead((segment(0, 10),), VERSION, last=True), DATA[:10]))


def hang_after_the_header(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, len(DATA)),), VERSION), DATA[:1000], len(DATA)))
    session.wait_for_end()


def hang_before_the_end(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, len(DATA)),), VERSION), DATA[:-1], len(DATA)))
    session.wait_for_end()


def close_in_mid_body(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, len(DATA)),), VERSION), DATA[:1000], len(DATA)))
    session.sock.shutdown(socket.SHUT_RDWR)


def close_at_once(session: Session, request: ReadRequest) -> None:
    session.sock.shutdown(socket.SHUT_RDWR)


def silent(session: Session, request: ReadRequest) -> None:
    session.wait_for_end()


def overloaded(session: Session, request: ReadRequest) -> None:
    message = codec.pack_error_head(Overloaded("full"))
    session.send(encode(Kind.READ_ANSWER, message.SerializeToString()))


def error_in_mid_answer(session: Session, request: ReadRequest) -> None:
    session.send(answer(ReadHead((segment(0, 1000),), VERSION), DATA[:1000]))
    overloaded(session, request)


BAD: list[Behaviour] = [
    flipped_byte, no_checksums, unchecked_bypass, short_answer, no_bytes_at_all, too_long,
    reordered, overlapping, body_unlike_header, oversized_frame, oversized_header, no_frame,
    no_protobuf, wrong_kind, two_versions, no_version, hang_after_the_header, hang_before_the_end,
    close_in_mid_body, close_at_once, silent, overloaded, error_in_mid_answer,
    goes_on_after_the_end,
]  # fmt: skip
