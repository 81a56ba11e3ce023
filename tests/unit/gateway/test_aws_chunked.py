"""The aws-chunked coding: AWS's own example, every cut, and what is malformed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from cachesvc.gateway.aws_chunked import Decoder, Seal, encode
from cachesvc.gateway.errors import S3Error
from cachesvc.gateway.sigv4 import Scope
from tests.support import pattern

# The example of AWS's "Transferring Payload in Multiple Chunks (Chunked Upload)".
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TIME, SCOPE = "20130524T000000Z", Scope("20130524", "us-east-1")
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
CHUNKS = (
    (65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)
SIGNED = b"".join(
    b"%x;chunk-signature=%s\r\n" % (size, signature.encode()) + b"a" * size + b"\r\n"
    for size, signature in CHUNKS
)


def seal() -> Seal:
    return Seal(SCOPE.key(SECRET), TIME, SCOPE, SEED)


def decoded(body: bytes, sealed: Seal | None = None) -> tuple[bytes, Decoder]:
    async def work() -> tuple[bytes, Decoder]:
        source = asyncio.StreamReader()
        source.feed_data(body)
        source.feed_eof()
        decoder = Decoder(source, sealed)
        return b"".join([piece async for piece in decoder.payload()]), decoder

    return asyncio.run(work())


def test_the_example_of_aws_is_right_to_the_last_signature() -> None:
    assert decoded(SIGNED, seal())[0] == b"a" * 66_560


@pytest.mark.parametrize("place", [100, 30, 65_640, 66_700])
def test_a_changed_byte_is_a_wrong_signature(place: int) -> None:
    changed = bytearray(SIGNED)
    changed[place] ^= 1
    with pytest.raises(S3Error):
        decoded(bytes(changed), seal())


def test_an_unsigned_chunk_is_refused_where_the_key_is_known() -> None:
    with pytest.raises(S3Error) as caught:
        decoded(b"3\r\nabc\r\n0\r\n\r\n", seal())
    assert caught.value.status == 403


def test_what_was_encoded_is_decoded_with_its_trailers() -> None:
    data = pattern(200_000)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 33_333):
            yield data[start : start + 33_333]

    async def coded() -> bytes:
        trailers = {"x-amz-checksum-crc32": "AAAAAA=="}
        return b"".join([piece async for piece in encode(pieces(), lambda: trailers)])

    got, decoder = decoded(asyncio.run(coded()))
    assert got == data
    assert decoder.length_bytes == len(data)
    assert decoder.trailers == {"x-amz-checksum-crc32": "AAAAAA=="}


@pytest.mark.parametrize(
    "body",
    [b"", b"5\r\nabc", b"g\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"-1\r\n", b"3 \r\nabc", b"3\nab"],
)
def test_what_is_malformed_is_400(body: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        decoded(body)
    assert caught.value.status == 400
