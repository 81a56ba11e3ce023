"""An origin with faults: a retry behind what has landed, or an error; never a short answer."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from cachesvc.core.errors import ObjectChanged, OriginError
from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.origin.budget import RetryBudget
from cachesvc.origin.fetch import _next_border
from tests.integration.s3_origin.servers import (
    DATA,
    ETAG,
    NAME,
    VERSION,
    Request,
    ScriptedServer,
    answer_status,
    fetched,
    head_206,
    opened,
    run,
    value,
)

ONCE = [
    Fault("503", count=2),
    Fault("500", count=2),
    Fault("cut", count=2),
    Fault("cut", count=1, after_bytes=0),
    Fault("reset", count=2),
    Fault("short_length", count=2),
    Fault("long_length", count=2),
    Fault("wrong_range", count=2),
    Fault("full_200", count=2),
    Fault("stall", count=1, delay_ms=60_000),
    Fault("slow_first_byte", count=1, delay_ms=60_000),
    Fault("slow_first_byte", count=1, delay_ms=50),
    Fault("no_etag", count=1),
]


@pytest.mark.parametrize("fault", ONCE, ids=lambda fault: f"{fault.kind}-{fault.after_bytes}")
def test_a_passing_fault_costs_a_retry_and_no_byte(dev: DevOrigin, fault: Fault) -> None:
    async def main() -> None:
        async with opened(dev.url, read_timeout_ms=400) as (origin, metrics):
            version = await origin.head(NAME)
            dev.faults = [fault]
            await fetched(origin, 1000, 600_000, version)
            slow_but_in_time = fault.kind == "slow_first_byte" and fault.delay_ms < 400
            assert value(metrics, "retries") == (0 if slow_but_in_time else fault.count)

    run(main())


ALWAYS = ["503", "500", "cut", "reset", "short_length", "long_length", "wrong_range", "full_200"]


@pytest.mark.parametrize("kind", [*ALWAYS, "stall", "slow_first_byte", "no_etag"])
def test_a_lasting_fault_is_an_error_that_names_origin_and_object(
    dev: DevOrigin, kind: str
) -> None:
    async def main() -> None:
        async with opened(dev.url, read_timeout_ms=200, attempts=2) as (origin, _):
            version = await origin.head(NAME)
            after = 10 if kind in ("cut", "reset", "short_length", "stall") else None
            dev.faults = [Fault(kind, after_bytes=after, delay_ms=60_000)]
            with pytest.raises(OriginError) as caught:
                await fetched(origin, 1000, 600_000, version)
            assert str(NAME) in str(caught.value)
            assert dev.url in str(caught.value)

    run(main())


@pytest.mark.parametrize("kind", ["etag_change", "weak_etag"])
def test_an_answer_of_another_version_is_object_changed(dev: DevOrigin, kind: str) -> None:
    async def main() -> None:
        async with opened(dev.url) as (origin, metrics):
            version = await origin.head(NAME)
            dev.faults = [Fault(kind)]
            with pytest.raises(ObjectChanged, match=str(NAME)):
                await fetched(origin, 0, 1000, version)
            assert value(metrics, "retries") == 0

    run(main())


@pytest.mark.parametrize("wrong_by", [-500_000, -1, 1, 1 << 40])
def test_a_version_of_another_size_is_object_changed_and_costs_no_retry(
    dev: DevOrigin, wrong_by: int
) -> None:
    async def main() -> None:
        async with opened(dev.url) as (origin, metrics):
            version = await origin.head(NAME)
            dev.clear_log()
            forged = replace(version, size_bytes=version.size_bytes + wrong_by)
            with pytest.raises(ObjectChanged, match=rf"{len(DATA)} bytes, not {forged.size_bytes}"):
                await fetched(origin, 0, min(1000, forged.size_bytes), forged)
            if wrong_by > 0:
                with pytest.raises(ObjectChanged, match=str(NAME)):
                    await fetched(origin, len(DATA) - 5, len(DATA) + 1, forged)
                with pytest.raises(ObjectChanged, match=str(NAME)):
                    await fetched(origin, len(DATA), len(DATA) + 1, forged)
            assert len(dev.requests) == (3 if wrong_by > 0 else 1)
            assert value(metrics, "retries") == value(metrics, "bytes") == 0

    run(main())


def test_a_whole_object_of_another_size_is_object_changed_and_costs_no_retry() -> None:
    def script(_request: Request, connected: socket.socket) -> bool:
        fields = f"Content-Length: {len(DATA)}\r\nETag: {ETAG}\r\n"
        connected.sendall(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + DATA)
        return True

    async def main(url: str) -> None:
        async with opened(url) as (origin, metrics):
            forged = replace(VERSION, size_bytes=len(DATA) - 1)
            with pytest.raises(ObjectChanged, match=rf"{len(DATA)} bytes, not {len(DATA) - 1}"):
                await fetched(origin, 0, len(DATA) - 1, forged)
            assert value(metrics, "retries") == 0

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert len(server.requests) == 1


def test_a_retry_resumes_behind_what_has_landed(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url, attempts=2) as (origin, metrics):
            version = await origin.head(NAME)
            dev.clear_log()
            dev.faults = [Fault("cut", after_bytes=100_000, count=7)]
            sink = await fetched(origin, 0, len(DATA), version)
            assert sink.break_offs == list(range(100_000, len(DATA), 100_000))
            ranges = [request.range for request in dev.requests]
            assert ranges == [(start, len(DATA)) for start in range(0, len(DATA), 100_000)]
            assert {request.if_match for request in dev.requests} == {version.etag}
            assert sum(request.body_bytes for request in dev.requests) == len(DATA)
            assert value(metrics, "bytes") == len(DATA)

    run(main())


def test_segments_grow_and_end_where_they_should() -> None:
    borders, landed_bytes = [], 0
    while landed_bytes < 8 << 20:
        landed_bytes = _next_border(landed_bytes)
        borders.append(landed_bytes / (1 << 20))
    assert borders == [0.25, 0.5, 1, 2, 4, 6, 8]
    assert [_next_border(at << 10) for at in (1, 257, 1000, 3000)] == [
        256 << 10, 512 << 10, 1 << 20, 4 << 20,
    ]  # fmt: skip


def test_an_overwrite_between_two_attempts_is_object_changed() -> None:
    def script(request: Request, connected: socket.socket) -> bool:
        if request.number:
            return answer_status(412, "PreconditionFailed", connected)
        connected.sendall(head_206(request) + DATA[:300_000])
        return False

    async def main(url: str) -> None:
        async with opened(url) as (origin, _):
            with pytest.raises(ObjectChanged, match=str(NAME)):
                await fetched(origin)

    with ScriptedServer(script) as server:
        run(main(server.url))
        assert [request.start for request in server.requests] == [0, 300_000]


def test_the_budget_ends_retries_before_the_attempts_do(dev: DevOrigin) -> None:
    async def main() -> None:
        budget = RetryBudget(share=0.0, per_second=0.0, most=2.0)
        async with opened(dev.url, budget, attempts=100) as (origin, metrics):
            version = await origin.head(NAME)
            dev.faults = [Fault("503", method="*")]
            with pytest.raises(OriginError, match="503"):
                await fetched(origin, 0, 1000, version)
            with pytest.raises(OriginError, match="503"):
                await origin.head(NAME)
            assert value(metrics, "retries") == 2
            assert value(metrics, "requests", op="get", code="503") == 3
            assert value(metrics, "requests", op="head", code="503") == 1

    run(main())


def test_head_and_list_are_retried_too(dev: DevOrigin) -> None:
    async def main() -> None:
        async with opened(dev.url) as (origin, metrics):
            dev.faults = [Fault("503", method="*", count=2)]
            assert (await origin.head(NAME)).size_bytes == len(DATA)
            dev.faults = [Fault("500", method="*", count=2)]
            assert len((await origin.list(NAME.bucket, "", "", None, 10)).versions) == 1
            assert value(metrics, "retries") == 4
            assert value(metrics, "requests", op="list", code="200") == 1

    run(main())


@pytest.mark.parametrize(
    "kind", ["cut", "reset", "short_length", "stall", "wrong_range", "full_200"]
)
def test_a_bypass_is_never_short(dev: DevOrigin, kind: str) -> None:
    async def main() -> None:
        async with opened(dev.url, read_timeout_ms=200) as (origin, _):
            dev.faults = [Fault(kind, delay_ms=60_000)]
            with pytest.raises(OriginError, match=str(NAME)):
                async with origin.stream(NAME, 10, 600_000) as stream:
                    assert [chunk async for chunk in stream.chunks]

    run(main())
