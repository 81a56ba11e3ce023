"""A probe whose readers leave: the others get their bytes, the last one to leave stops it."""

from __future__ import annotations

import asyncio

from cachesvc.core.request import StatRequest
from tests.support import NAME, open_rig, read_of, run, soon
from tests.unit.reader.probes import HEAD, PROBE, SMALL, Gate
from tests.unit.reader.sample import DATA


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
