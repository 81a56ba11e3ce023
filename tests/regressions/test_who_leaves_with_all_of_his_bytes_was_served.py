"""A client that hangs up as soon as it has its last byte does not come back for the end of its
answer: the read was counted as an error, and the GET that was bringing more for the next reader was
stopped. Found by a metric: of 180 complete reads by the gateway 40 to 60 were errors.
"""

from __future__ import annotations

from cachesvc.answer import take
from cachesvc.core.request import ReadRequest
from cachesvc.origin.memory import MemoryOrigin
from tests.support import (
    GEOMETRY,
    NAME,
    blocks_of,
    open_rig,
    pattern,
    read_of,
    run,
    soon,
    taken_bytes,
)

DATA = pattern(GEOMETRY.block_bytes)


def slow() -> MemoryOrigin:
    return MemoryOrigin(chunk_bytes=GEOMETRY.page_bytes, chunk_pause_s=0.005)


def test_who_leaves_with_all_of_his_bytes_was_served() -> None:
    async def body() -> None:
        async with open_rig(origin=slow()) as rig:
            version = rig.origin.put(NAME, DATA)
            answer = await rig.reader.read(read_of((0, 10)))
            segment = await take(answer)
            assert segment is not None
            assert segment.length_bytes == 10
            segment.close()
            await answer.aclose()
            assert rig.count("requests_total", op="read", result="filled") == 1
            assert rig.count("requests_total", op="read", result="error") == 0
            block = blocks_of(version)[0]
            window = (1 << GEOMETRY.extent_min_bytes // GEOMETRY.page_bytes) - 1
            await soon(lambda: rig.store.at_hand(block) == window, "the rest has landed, too")
            assert len(rig.origin.gets) == 1

    run(body)


def test_so_was_he_of_an_uncached_read() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            request = ReadRequest(NAME, ((0, 10),), bypass=True)
            answer = await rig.reader.read(request)
            segment = await take(answer)
            assert segment is not None
            assert taken_bytes(segment, GEOMETRY.page_bytes) == DATA[:10]
            await answer.aclose()
            assert rig.count("requests_total", op="read", result="bypass") == 1
            assert rig.count("requests_total", op="read", result="error") == 0
            assert rig.count("read_bytes_total", source="origin") == 10

    run(body)


def test_who_leaves_before_is_an_error_and_stops_what_nobody_else_wants() -> None:
    async def body() -> None:
        async with open_rig(origin=slow()) as rig:
            rig.origin.put(NAME, DATA)
            answer = await rig.reader.read(read_of((0, None)))
            segment = await take(answer)
            assert segment is not None
            assert segment.length_bytes < len(DATA)
            segment.close()
            await answer.aclose()
            assert rig.count("requests_total", op="read", result="error") == 1
            assert rig.count("requests_total", op="read", result="filled") == 0
            await soon(lambda: rig.coalescer.flight_count == 0, "it was stopped")
            assert rig.origin.landed_bytes < len(DATA)

    run(body)
