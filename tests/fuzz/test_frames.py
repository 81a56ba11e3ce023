"""Whatever comes over a wire: the same frames however it is cut, or a clean error, and no more
memory than the limits say.
"""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachesvc.core.errors import ProtocolError
from cachesvc.wire.frame import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    PREFIX_BYTES,
    Kind,
    RequestDecoder,
    encode,
    parse_prefix,
)
from tests.fuzz.sample import FUZZ

frames = st.builds(encode, st.sampled_from(Kind), st.binary(max_size=200))
bad_frames = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.builds(encode, st.sampled_from(Kind), st.binary(max_size=20), st.integers(1, 1 << 63)),
    st.builds(
        lambda *fields: struct.pack(">2sBBIQ", *fields),
        st.sampled_from([b"CS", b"cs", b"GE"]),
        st.integers(0, 255),
        st.integers(0, 1),
        st.integers(0, (1 << 32) - 1),
        st.integers(0, (1 << 64) - 1),
    ),
)
streams = st.builds(
    lambda parts, tail: b"".join(parts) + tail,
    st.lists(frames, max_size=4),
    st.one_of(st.just(b""), bad_frames, st.builds(lambda f, n: f[:n], frames, st.integers(0, 200))),
)


def decoded(pieces: list[bytes]) -> tuple[list[tuple[Kind, bytes]], type[Exception] | None]:
    """The frames that come out of a stream cut into pieces, and how it ended."""
    decoder = RequestDecoder()
    found = []
    for piece in pieces:
        decoder.feed(piece)
        try:
            while (frame := decoder.next()) is not None:
                found.append(frame)
        except ProtocolError as error:
            return found, type(error)
    return found, None


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(borders)]


@FUZZ
@given(streams, st.lists(st.integers(0, 10_000), max_size=8))
@example(b"X", [])
@example(b"CX", [1])
@example(b"CS" + bytes(14), [1, 2, 3])
def test_however_the_bytes_are_cut_the_same_frames_or_error_come_out(
    stream: bytes, places: list[int]
) -> None:
    whole = decoded([stream])
    assert decoded(cut(stream, places)) == whole
    assert decoded([stream[i : i + 1] for i in range(len(stream))]) == whole


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=300)), max_size=6))
def test_frames_come_out_as_they_went_in(sent: list[tuple[Kind, bytes]]) -> None:
    found, error = decoded([b"".join(encode(kind, header) for kind, header in sent)])
    assert (found, error) == (sent, None)


@FUZZ
@given(st.lists(st.binary(max_size=64), max_size=20))
def test_random_bytes_raise_nothing_but_a_protocol_error(pieces: list[bytes]) -> None:
    decoded(pieces)


def test_a_decoder_stands_between_two_frames_or_does_not() -> None:
    decoder = RequestDecoder()
    assert not decoder.held
    decoder.feed(encode(Kind.STAT, b"abc")[:-1])
    assert decoder.next() is None
    assert decoder.held
    decoder.feed(b"c")
    assert decoder.next() == (Kind.STAT, b"abc")
    assert not decoder.held


@given(st.binary(min_size=PREFIX_BYTES, max_size=64))
def test_a_prefix_that_is_accepted_is_within_the_limits(raw: bytes) -> None:
    try:
        prefix = parse_prefix(raw)
    except ProtocolError:
        return
    assert prefix.header_bytes <= MAX_HEADER_BYTES
    assert prefix.body_bytes <= MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("header_bytes", "body_bytes"),
    [(MAX_HEADER_BYTES + 1, 0), ((1 << 32) - 1, 0), (0, MAX_BODY_BYTES + 1), (0, (1 << 64) - 1)],
)
def test_a_length_beyond_its_limit_is_refused_before_anything_is_allocated(
    header_bytes: int, body_bytes: int
) -> None:
    raw = struct.pack(">2sBBIQ", b"CS", Kind.READ, 0, header_bytes, body_bytes)
    decoder = RequestDecoder()
    tracemalloc.start()
    try:
        decoder.feed(raw)
        with pytest.raises(ProtocolError, match=r"most|none"):
            decoder.next()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_header_beyond_the_limit_cannot_be_sent() -> None:
    assert len(encode(Kind.READ, bytes(MAX_HEADER_BYTES))) == PREFIX_BYTES + MAX_HEADER_BYTES
    with pytest.raises(ProtocolError, match="65537 bytes"):
        encode(Kind.READ, bytes(MAX_HEADER_BYTES + 1))


def test_someone_who_speaks_another_protocol_is_found_out_at_once() -> None:
    for greeting in (b"G", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0", b"\0"):
        assert decoded([greeting]) == ([], ProtocolError)
