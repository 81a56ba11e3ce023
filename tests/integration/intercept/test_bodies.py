"""Bodies in the hands of programs that share them among threads and tasks, or wrap them."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cachesvc_client.pinned import PinnedObject

from tests.integration.intercept.conftest import BUCKET, DATA, Counted, Place

PIECE_BYTES = 300_000


def test_threads_that_share_a_body_get_each_byte_once(place: Place) -> None:
    place.install()
    body = place.boto().get_object(Bucket=BUCKET, Key="big")["Body"]

    def pieces(_: int) -> list[bytes]:
        return list(iter(lambda: body._raw_stream.read(PIECE_BYTES), b""))

    with ThreadPoolExecutor(8) as pool:
        found = [piece for some in pool.map(pieces, range(8)) for piece in some]
    expected = [DATA[n : n + PIECE_BYTES] for n in range(0, len(DATA), PIECE_BYTES)]
    assert sorted(found) == sorted(expected)


def test_tasks_that_share_a_body_are_told_so_as_aiohttp_tells_them(
    place: Place,
) -> None:
    place.install()

    async def work(client: Any) -> list[Any]:
        async with (await client.get_object(Bucket=BUCKET, Key="big"))["Body"] as body:
            reads = [body.read(3 << 20) for _ in range(3)]
            found = await asyncio.gather(*reads, return_exceptions=True)
            return [*found, await body.read()]

    first, *others, rest = place.aio(work)
    assert [type(one) for one in others] == [RuntimeError] * 2
    assert first + rest == DATA


def test_a_read_that_was_cancelled_takes_no_byte(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.install()

    async def work(client: Any) -> bytes:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        read = PinnedObject.read

        def told(*args: Any) -> bytes:
            loop.call_soon_threadsafe(begun.set)
            return read(*args)

        monkeypatch.setattr(PinnedObject, "read", told)
        async with (await client.get_object(Bucket=BUCKET, Key="big"))["Body"] as body:
            head: bytes = await body.read(10)
            task = asyncio.ensure_future(body.read(5 << 20))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            rest: bytes = await body.read()
            return head + rest

    assert place.aio(work) == DATA


def test_an_empty_body_can_be_wrapped_and_read(place: Place, counted: Counted) -> None:
    place.install()
    body = place.boto().get_object(Bucket=BUCKET, Key="empty")["Body"]
    assert io.BufferedReader(body._raw_stream).read() == b""
    assert counted.answered == 1
