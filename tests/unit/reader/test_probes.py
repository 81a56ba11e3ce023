"""A cold object costs one GET that tells its version, too; and nothing wrong is made of it."""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.answer import take
from cachesvc.core.errors import AccessDenied, CacheError, ObjectNotFound, OriginError
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.types import ObjectName, Source
from cachesvc.disk.memory import MemoryDisk
from cachesvc.origin.memory import Fault
from tests.support import (
    NAME,
    block_data,
    blocks_of,
    open_rig,
    pattern,
    read_of,
    received,
    run,
    soon,
    store_pages,
)
from tests.unit.reader.probes import HEAD, PROBE, SMALL, Gate
from tests.unit.reader.sample import DATA


def test_a_small_cold_object_costs_one_get_and_no_head() -> None:
    async def body() -> None:
        async with open_rig(capacity_bytes=8 << 20) as rig:
            names = [ObjectName("bucket", f"key{number}") for number in range(500)]
            for number, name in enumerate(names):
                rig.origin.put(name, pattern(1 + number % 300, number))

            async def read(name: ObjectName) -> bytes:
                answer = await rig.reader.read(ReadRequest(name, ((0, None),)))
                return b"".join(data for _, data in await received(answer))

            results = await asyncio.gather(*(read(name) for name in names))
            assert results == [pattern(1 + n % 300, n) for n in range(500)]
            assert [asked.op for asked in rig.origin.log] == ["get"] * 500
            assert rig.count("requests_total", op="read", result="filled") == 500
            assert rig.count("read_bytes_total", source="disk") == 0
            for name in names:
                answer = rig.reader.hit(ReadRequest(name, ((0, None),)))
                assert answer is not None
                answer.close()

    run(body)


def test_readers_and_stats_that_come_together_share_the_probe() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = rig.origin.put(NAME, SMALL)
            gate = Gate(rig, "get")
            reads = [asyncio.create_task(rig.read()) for _ in range(20)]
            stats = [asyncio.create_task(rig.reader.stat(StatRequest(NAME))) for _ in range(3)]
            pinned = asyncio.create_task(rig.reader.read(ReadRequest(NAME, ((0, None),), version)))
            answer = await pinned
            first = asyncio.create_task(take(answer))
            await soon(lambda: len(rig.origin.log) == 1, "the probe is sent")
            gate.opened.set()
            assert set(await asyncio.gather(*reads)) == {SMALL}
            assert {(await stat).version for stat in stats} == {version}
            segment = await first
            assert segment is not None
            segment.close()
            await answer.aclose()
            assert rig.origin.log == [PROBE]
            assert rig.origin.landed_bytes == len(SMALL)

    run(body)


@pytest.mark.parametrize("wanted", [(0, None), (100, 200), (700, 710), (900, 3000), (0, 1 << 60)])
def test_a_probe_asks_for_what_the_plan_has_first_in_block_0(
    wanted: tuple[int, int | None],
) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            assert await rig.read(wanted) == DATA[wanted[0] : wanted[1]]
            probed = [asked.wanted for asked in rig.origin.gets]
            again = rig.origin.put(ObjectName("bucket", "other"), DATA)
            await rig.reader.stat(StatRequest(again.name))
            rig.origin.log.clear()
            answer = await rig.reader.read(ReadRequest(again.name, (wanted,)))
            await received(answer)
            assert sorted(map(str, probed)) == sorted(str(a.wanted) for a in rig.origin.gets)

    run(body)


def test_what_lies_behind_block_0_or_is_no_range_is_asked_by_head() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            assert await rig.read((1024, 1025)) == DATA[1024:1025]
            assert [asked.op for asked in rig.origin.log] == ["head", "get"]

    run(body)


@pytest.mark.parametrize("stored", [0, 1])
def test_a_name_with_a_stored_block_0_is_asked_by_head(stored: int) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = rig.origin.put(NAME, DATA)
            block = blocks_of(version)[stored]
            store_pages(rig.store, block, block_data(block, DATA))
            rig.origin.put(NAME, SMALL)
            assert await rig.read() == SMALL
            assert [asked.op for asked in rig.origin.log] == (
                ["head", "get"] if stored == 0 else ["get"]
            )

    run(body)


def test_a_restarted_node_finds_its_blocks_without_a_get() -> None:
    async def body() -> None:
        disk = MemoryDisk()
        async with open_rig(disks=[disk]) as rig:
            version = rig.origin.put(NAME, SMALL)
            assert await rig.read() == SMALL
            origin = rig.origin
        for recovered in (False, True):
            async with open_rig(disks=[disk], recovered=recovered) as rig:
                rig.origin.put(NAME, SMALL, version.etag)
                assert await rig.read() == SMALL
                assert rig.origin.log == [HEAD]
        assert origin.gets == [PROBE]

    run(body)


@pytest.mark.parametrize("kind", [OriginError, AccessDenied, ObjectNotFound])
def test_before_its_head_a_probe_fails_as_a_head_does(kind: type[CacheError]) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            gate = Gate(rig, "get")
            gate.error = kind("told so")
            gate.opened.set()
            asks = [rig.read() for _ in range(5)]
            for error in await asyncio.gather(*asks, return_exceptions=True):
                assert type(error) is kind
            with pytest.raises(kind):
                await rig.read()
            assert rig.origin.log == [PROBE] * (1 if kind is ObjectNotFound else 2)
            gate.error = None
            rig.origin.put(NAME, SMALL)
            rig.clock.now += 2.0
            assert await rig.read() == SMALL

    run(body)


def test_a_probe_that_is_cut_serves_what_landed_and_fails_the_rest() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = rig.origin.put(NAME, DATA)
            rig.origin.before = lambda op, name, wanted: Fault(cut_after_bytes=300)
            answer = await rig.reader.read(read_of((0, 1000)))
            assert answer.version == version
            landed: list[int] = []

            async def taken() -> None:
                while (segment := await take(answer)) is not None:
                    landed.append(segment.length_bytes)
                    segment.close()

            with pytest.raises(OriginError, match="cut"):
                await taken()
            assert sum(landed) == 256
            await answer.aclose()
            rig.origin.before = None
            assert await rig.read((0, 1000)) == DATA[:1000]

    run(body)


def test_a_probe_without_room_in_the_store_is_read_once() -> None:
    async def body() -> None:
        async with open_rig(disks=[MemoryDisk(limit_bytes=0)]) as rig:
            rig.origin.put(NAME, SMALL)
            answer = await rig.reader.read(read_of())
            await soon(lambda: rig.coalescer.flight_count == 0, "all has landed")
            segment = await take(answer)
            assert segment is not None
            assert segment.source is Source.ORIGIN
            segment.close()
            await answer.aclose()
            assert rig.origin.log == [PROBE]
            assert rig.coalescer.buffer_bytes == 0

    run(body)
