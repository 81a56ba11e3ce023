"""A read of a few cold bytes is answered when they have landed, and then is over. That stopped the
GET that brought them, if it brought more: whoever read on, or read the object next, fetched the
same bytes again. Found by eight processes that read one header, and then one body.
"""

from __future__ import annotations

import asyncio

from cachesvc.origin.memory import MemoryOrigin
from tests.support import GEOMETRY, NAME, Rig, open_rig, pattern, run

DATA = pattern(GEOMETRY.block_bytes)


def slow() -> MemoryOrigin:
    return MemoryOrigin(chunk_bytes=GEOMETRY.page_bytes, chunk_pause_s=0.005)


async def fetched_once(rig: Rig) -> None:
    """Whatever is read now, no byte is fetched a second time."""
    assert await rig.read() == DATA
    wanted = sorted((one.wanted.start, one.wanted.end) for one in rig.origin.gets if one.wanted)
    assert sum(end - start for start, end in wanted) == rig.origin.landed_bytes == len(DATA)


def test_the_rest_of_the_extent_lands_for_whoever_reads_on() -> None:
    async def body() -> None:
        async with open_rig(origin=slow()) as rig:
            rig.origin.put(NAME, DATA)
            assert await rig.read((0, 10)) == DATA[:10]  # a probe
            assert await rig.read((600, 610)) == DATA[600:610]  # a flight to a known version
            await fetched_once(rig)

    run(body)


def test_so_it_does_for_many_who_read_a_header_and_then_all() -> None:
    async def body() -> None:
        async with open_rig(origin=slow()) as rig:
            rig.origin.put(NAME, DATA)
            headers = await asyncio.gather(*(rig.read((0, 8)) for _ in range(8)))
            assert headers == [DATA[:8]] * 8
            await fetched_once(rig)

    run(body)
