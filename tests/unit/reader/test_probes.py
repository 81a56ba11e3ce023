"""A cold object costs one GET that tells its version, too; and nothing wrong is made of it."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from cachesvc import buffers
from cachesvc.answer import take
from cachesvc.buffers import room_bytes
from cachesvc.core.errors import (
    AccessDenied,
    CacheError,
    ObjectNotFound,
    OriginError,
    Overloaded,
)
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion, Source
from cachesvc.disk.memory import MemoryDisk
from cachesvc.origin.memory import Asked, Fault
from tests.support import (
    NAME,
    Rig,
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
from tests.unit.reader.sample import DATA

PROBE = Asked("get", NAME, "", ByteRange(0, 1024))
HEAD = Asked("head", NAME)
SMALL = pattern(300)


class Gate:
    """Holds the origin's answers back, by the kind of question, until it is opened."""

    def __init__(self, rig: Rig, *ops: str) -> None:
        self.opened = asyncio.Event()
        self.error: CacheError | None = None
        self._ops = ops
        rig.origin.before = lambda op, name, wanted: self._wait(op)

    async def _wait(self, op: str) -> Fault | None:
        if op in self._ops:
            await self.opened.wait()
            if self.error is not None:
                raise self.error
        return None


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


# -- leaving


def test_the_last_reader_to_leave_stops_the_probe() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, SMALL)
            Gate(rig, "get")
            reads = [asyncio.create_task(rig.read()) for _ in range(3)]
            await soon(lambda: rig.origin.active_count == 1, "the probe is sent")
            reads[0].cancel()
            reads[1].cancel()
            await asyncio.gather(*reads[:2], return_exceptions=True)
            assert rig.origin.active_count == 1
            reads[2].cancel()
            await asyncio.gather(*reads, return_exceptions=True)
            await soon(lambda: rig.origin.active_count == 0, "the probe is stopped")
            rig.origin.before = None
            assert await rig.read() == SMALL
            assert rig.origin.log == [PROBE, PROBE]

    run(body)


def test_a_leader_that_is_cancelled_leaves_the_probe_to_the_others() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, SMALL)
            gate = Gate(rig, "get")
            reads = [asyncio.create_task(rig.read()) for _ in range(2)]
            await soon(lambda: rig.origin.active_count == 1, "the probe is sent")
            reads[0].cancel()
            gate.opened.set()
            assert await reads[1] == SMALL
            assert rig.origin.log == [PROBE]

    run(body)


def test_a_stat_that_shared_a_probe_which_was_called_off_asks_by_head() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = rig.origin.put(NAME, SMALL)
            Gate(rig, "get")
            read = asyncio.create_task(rig.read())
            await soon(lambda: rig.origin.active_count == 1, "the probe is sent")
            stat = asyncio.create_task(rig.reader.stat(StatRequest(NAME)))
            await asyncio.sleep(0)
            read.cancel()
            assert (await stat).version == version
            assert rig.origin.log == [PROBE, HEAD]

    run(body)


def test_an_answer_that_nobody_takes_from_gives_its_probe_back() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            answer = await rig.reader.read(read_of())
            await answer.aclose()
            await soon(lambda: rig.coalescer.flight_count == 0, "over")
            assert rig.coalescer.buffer_bytes == 0

    run(body)


# -- limits and ages


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
            assert rig.coalescer.buffer_bytes == 1024
            gate.opened.set()
            answer = await read
            assert rig.coalescer.buffer_bytes == room_bytes(len(SMALL)) == 512
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
