"""A probe keeps the limits of GETs and buffers, and a version's age counts from its sending."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from cachesvc import buffers
from cachesvc.buffers import room_bytes
from cachesvc.core.errors import Overloaded
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.disk.memory import MemoryDisk
from tests.support import NAME, blocks_of, open_rig, read_of, received, run, soon
from tests.unit.reader.probes import HEAD, PROBE, SMALL, Gate
from tests.unit.reader.sample import DATA


def test_a_probe_is_one_of_the_gets_and_waits_for_its_turn() -> None:
    async def body() -> None:
        async with open_rig(max_gets=1, max_waiting_count=2) as rig:
            names = [ObjectName("bucket", f"key{number}") for number in range(4)]
            for name in names:
                rig.origin.put(name, SMALL)
            gate = Gate(rig, "get")

            async def read(name: ObjectName) -> bytes:
                answer = await rig.reader.read(ReadRequest(name, ((0, None),)))
                return b"".join(data for _, data in await received(answer))

            reads = [asyncio.create_task(read(name)) for name in names]
            await soon(lambda: rig.coalescer.flight_count == 3, "one flies and two wait")
            with pytest.raises(Overloaded, match="waiting already"):
                await reads[3]
            gate.opened.set()
            assert await asyncio.gather(*reads[:3]) == [SMALL] * 3
            assert rig.origin.peak_count == 1

    run(body)


def test_a_probe_gives_back_the_room_that_its_object_does_not_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buffers, "MIN_BUFFER_BYTES", 64)

    async def body() -> None:
        async with open_rig(disks=[MemoryDisk(limit_bytes=0)]) as rig:
            rig.origin.put(NAME, SMALL)
            gate = Gate(rig, "get")
            read = asyncio.create_task(rig.reader.read(read_of()))
            await soon(lambda: rig.origin.active_count == 1, "the probe is sent")
            assert rig.coalescer.buffer_bytes == room_bytes(1024)
            gate.opened.set()
            answer = await read
            assert rig.coalescer.buffer_bytes == room_bytes(len(SMALL)) == room_bytes(512)
            await received(answer)

    run(body)


def test_the_age_of_a_version_counts_from_the_sending_of_its_probe() -> None:
    async def body() -> None:
        async with open_rig(revalidate_s=10.0, max_gets=1) as rig:
            other = rig.origin.put(ObjectName("bucket", "other"), SMALL)
            rig.origin.put(NAME, SMALL)
            gate = Gate(rig, "get")
            first = asyncio.create_task(
                received(await rig.reader.read(ReadRequest(other.name, ((0, 1),), other)))
            )
            await soon(lambda: rig.origin.active_count == 1, "another GET flies")
            read = asyncio.create_task(rig.reader.read(read_of()))
            await asyncio.sleep(0)
            rig.clock.now += 4.0  # the probe waits for its turn
            young = asyncio.create_task(rig.reader.stat(StatRequest(NAME, 0.0)))
            await asyncio.sleep(0)
            before, gate = gate, Gate(rig, "get")
            before.opened.set()
            await first
            await soon(lambda: rig.origin.gets[-1] == PROBE, "the probe is sent")
            rig.clock.now += 3.0
            gate.opened.set()
            answer = await read
            assert answer.fresh_for_s == 7.0
            await received(answer)
            await young
            assert HEAD not in rig.origin.log

    run(body)


def test_who_comes_too_late_for_a_probe_asks_again_and_mixes_nothing() -> None:
    async def body() -> None:
        async with open_rig(revalidate_s=0.0) as rig:
            rig.origin.put(NAME, DATA)
            gate = Gate(rig, "head")
            began = asyncio.create_task(rig.reader.read(read_of((0, 1024))))
            await soon(lambda: rig.origin.active_count == 1, "the probe is sent")
            rig.clock.now += 1.0
            late = asyncio.create_task(rig.read())
            answer = await began
            rig.origin.put(NAME, DATA[::-1])
            gate.opened.set()
            pieces = await received(answer)
            assert b"".join(data for _, data in pieces) == DATA[:1024]
            assert await late == DATA[::-1]

    run(body)


def test_a_fill_of_the_block_under_way_is_not_probed_beside() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version: ObjectVersion = rig.origin.put(NAME, SMALL)
            gate = Gate(rig, "get")
            with closing(rig.coalescer.join(blocks_of(version)[0], 0b111)):
                await soon(lambda: rig.origin.active_count == 1, "the fill is under way")
                read = asyncio.create_task(rig.read())
                await soon(lambda: HEAD in rig.origin.log, "a HEAD is sent")
                gate.opened.set()
                assert await read == SMALL
            assert len(rig.origin.gets) == 1

    run(body)
