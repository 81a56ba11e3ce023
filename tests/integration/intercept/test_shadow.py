"""Shadow mode: a lying cache is found out, and nobody gets its bytes."""

from __future__ import annotations

from typing import Any

import pytest
from cachesvc_client.client import CacheClient
from cachesvc_client.intercept import hooks
from cachesvc_client.pinned import PinnedObject

from tests.integration.intercept.conftest import BUCKET, DATA, SMALL, Counted, Place


def read(client: Any, key: str = "big", **options: Any) -> bytes:
    return bytes(client.get_object(Bucket=BUCKET, Key=key, **options)["Body"].read())


def lie(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The cache has another byte there."""
    begin, read_on = CacheClient.begin, PinnedObject.read

    def spoilt(data: bytes, start: int) -> bytes:
        if not start <= at < start + len(data):
            return data
        place = at - start
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    def begin_lying(self: CacheClient, uri: str, start: int, end: int) -> Any:
        pinned, data = begin(self, uri, start, end)
        return pinned, spoilt(data, start)

    monkeypatch.setattr(CacheClient, "begin", begin_lying)
    monkeypatch.setattr(
        PinnedObject, "read", lambda self, start, end: spoilt(read_on(self, start, end), start)
    )


def test_reads_are_s3s_and_compared(place: Place, counted: Counted) -> None:
    place.install(shadow=1.0)
    gets = place.asked("GetObject")
    client = place.boto()
    assert read(client, "small") == SMALL
    assert read(client, "small", Range="bytes=5-99") == SMALL[5:100]
    body = client.get_object(Bucket=BUCKET, Key="big")["Body"]
    assert b"".join(body.iter_chunks(700_000)) == DATA
    with client.get_object(Bucket=BUCKET, Key="big")["Body"] as raw:
        assert raw.read(1000) == DATA[:1000]  # and no more
    assert place.asked("GetObject") >= gets + 4
    assert (counted.answered, counted.compared) == (0, 4)
    assert counted.compared_bytes == len(SMALL) + 95 + len(DATA) + 1000
    assert (counted.differing, counted.stale, counted.unread, counted.faults) == (0, 0, 0, 0)
    assert counted.s3_seconds > 0
    assert counted.cache_seconds > 0


@pytest.mark.parametrize("at", [3, 700_000, 19_999_999])
def test_a_lying_cache_is_found_out(
    place: Place, monkeypatch: pytest.MonkeyPatch, counted: Counted, at: int,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    place.install(shadow=1.0)
    client = place.boto()
    assert read(client) == DATA
    lie(monkeypatch, at)
    assert read(client) == DATA
    body = client.get_object(Bucket=BUCKET, Key="big")["Body"]
    assert b"".join(body.iter_chunks(1 << 20)) == DATA

    async def by_aio(client: Any) -> bytes:
        async with (await client.get_object(Bucket=BUCKET, Key="big"))["Body"] as body:
            return b"".join([chunk async for chunk in body.iter_chunks(999_999)])

    assert place.aio(by_aio) == DATA
    assert (counted.differing, counted.answered, counted.faults) == (3, 0, 0)
    assert "s3://data/big, version" in caplog.text
    assert "the cache differs from S3 in bytes" in caplog.text


def test_a_lie_beyond_what_was_read_is_nobodys(
    place: Place, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    place.install(shadow=1.0)
    lie(monkeypatch, 1000)
    body = place.boto().get_object(Bucket=BUCKET, Key="big")["Body"]
    assert body.read(1000) == DATA[:1000]
    assert counted.differing == 0
    assert body.read(1) == DATA[1000:1001]
    assert counted.differing == 1
    body.close()


def test_another_version_is_stale_and_no_difference(place: Place, counted: Counted) -> None:
    place.origin.put(BUCKET, "shadowed", SMALL)
    place.install(shadow=1.0)
    client = place.boto()
    assert read(client, "shadowed") == SMALL
    place.origin.put(BUCKET, "shadowed", DATA)
    assert read(client, "shadowed") == DATA
    assert (counted.stale, counted.differing) == (1, 0)


def test_the_share_is_the_one_asked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    monkeypatch.setenv("CACHESVC_SHADOW", "0.25")
    place.install()
    assert hooks._current is not None
    numbers = iter([0.9, 0.2, 0.25, 0.0])
    hooks._current.chance = lambda: next(numbers)
    client = place.boto()
    for _ in range(4):
        assert read(client, "small") == SMALL
    assert (counted.answered, counted.compared) == (2, 2)


def test_a_cache_that_has_no_bytes_leaves_the_answer_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    place.install(shadow=1.0)

    def broken(*_: Any) -> Any:
        raise ValueError("a defect in the test")

    monkeypatch.setattr(CacheClient, "begin", broken)
    assert read(place.boto()) == DATA
    assert (counted.compared, counted.faults, counted.differing) == (1, 1, 0)


@pytest.mark.parametrize("share", ["-1", "2", "much"])
def test_a_share_that_is_none_is_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    monkeypatch.setenv("CACHESVC_SHADOW", share)
    with pytest.raises(ValueError, match=f"the share of shadow reads is '{share}'"):
        place.install()
