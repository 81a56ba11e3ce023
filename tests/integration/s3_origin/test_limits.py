"""Fetches that are cancelled, closed or too many: nothing is held, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from cachesvc.core.errors import OriginError
from cachesvc.core.types import ByteRange
from cachesvc.devorigin import DevOrigin, Fault
from tests.integration.s3_origin.servers import (
    DATA,
    NAME,
    Request,
    ScriptedServer,
    answer_right,
    fetched,
    opened,
    run,
)
from tests.sinks import BufferSink


def test_cancelling_a_fetch_frees_its_thread_and_its_buffer(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, max_gets=1, read_timeout_ms=600_000) as (origin, _):
            version = await origin.head(NAME)
            dev.faults = [Fault("stall", after_bytes=300_000, count=1, delay_ms=600_000)]
            sink = BufferSink(len(DATA))
            fetch = asyncio.create_task(origin.fetch(version, ByteRange(0, len(DATA)), sink))
            await asyncio.to_thread(sink.first.wait)
            fetch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetch
            assert sink.buffer[: sink.count_bytes] == DATA[: sink.count_bytes]
            sink.free()
            await fetched(origin, 0, 1000, version)

    run(main())


def test_a_fetch_that_nobody_wants_any_more_stops(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, max_gets=1, read_timeout_ms=600_000) as (origin, _):
            version = await origin.head(NAME)
            dev.faults = [Fault("stall", after_bytes=300_000, count=1, delay_ms=600_000)]
            sink = BufferSink(len(DATA))
            fetch = asyncio.create_task(origin.fetch(version, ByteRange(0, len(DATA)), sink))
            await asyncio.to_thread(sink.first.wait)
            sink.cancelled = True
            with pytest.raises(OriginError, match="nobody wants"):
                await fetch
            sink.free()
            await fetched(origin, 0, 1000, version)

    run(main())


def test_closing_ends_fetches_under_way_and_waiting(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, max_gets=1, read_timeout_ms=600_000) as (origin, _):
            version = await origin.head(NAME)
            dev.faults = [Fault("stall", after_bytes=300_000, delay_ms=600_000)]
            sinks = [BufferSink(len(DATA)) for _ in range(3)]
            whole = ByteRange(0, len(DATA))
            fetches = [asyncio.create_task(origin.fetch(version, whole, sink)) for sink in sinks]
            await asyncio.to_thread(sinks[0].first.wait)
            await origin.close()
            for fetch, sink in zip(fetches, sinks, strict=True):
                with pytest.raises(OriginError, match="closed"):
                    await fetch
                sink.free()
            with pytest.raises(OriginError, match="closed"):
                await origin.head(NAME)

    run(main())


def test_a_fetch_cancelled_while_it_waits_never_starts(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, max_gets=1, read_timeout_ms=600_000) as (origin, _):
            version = await origin.head(NAME)
            dev.faults = [Fault("stall", after_bytes=300_000, count=1, delay_ms=600_000)]
            sink, waiting = BufferSink(len(DATA)), BufferSink(1000)
            first = asyncio.create_task(origin.fetch(version, ByteRange(0, len(DATA)), sink))
            await asyncio.to_thread(sink.first.wait)
            second = asyncio.create_task(origin.fetch(version, ByteRange(0, 1000), waiting))
            await asyncio.sleep(0)
            for task in (second, first):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            waiting.free()
            assert [request.method for request in dev.requests] == ["HEAD", "GET"]

    run(main())


def test_never_more_gets_at_a_time_than_allowed() -> None:
    together = threading.Barrier(3)
    lock = threading.Lock()
    active = peak = 0

    def script(request: Request, connected: socket.socket) -> bool:
        nonlocal active, peak
        with lock:
            active += 1
            peak = max(peak, active)
        together.wait()
        with lock:
            active -= 1
        return answer_right(request, connected)

    async def main(url: str) -> None:
        async with opened(url, max_gets=3) as (origin, _):
            await asyncio.gather(*[fetched(origin, at, at + 1000) for at in range(0, 12_000, 1000)])

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert len(server.requests) == 12
        assert len({request.connection for request in server.requests}) == 3
    assert peak == 3
