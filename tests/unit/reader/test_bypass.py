"""What may not be cached is passed through; what is read is counted by its source."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cachesvc.answer import take
from cachesvc.core.errors import NotCacheable, ObjectNotFound, OriginError, RangeError
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectName
from cachesvc.origin.memory import Fault, MemoryOrigin
from tests.support import NAME, open_rig, read_of, received, run
from tests.unit.reader.sample import DATA, END, RANGES, expected, fill, hit


@pytest.mark.parametrize("etag", ["", 'W/"weak"', "unquoted", '""'])
def test_an_object_without_a_strong_etag_is_an_invitation_to_bypass(etag: str) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = rig.origin.put(NAME, DATA, etag)
            answer = await rig.reader.read(read_of())
            assert (answer.version, answer.version.cacheable) == (version, False)
            assert await received(answer) == []
            assert rig.reader.hit(read_of()) is None
            with pytest.raises(NotCacheable, match="bypass"):
                await rig.reader.read(ReadRequest(NAME, ((0, 1),), version))
            for wanted in RANGES:
                answer = await rig.reader.read(ReadRequest(NAME, (wanted,), bypass=True))
                pieces = await received(answer)
                assert b"".join(data for _, data in pieces) == expected(*wanted)
                assert [s for s, _ in pieces] == list(range(wanted[0], END, 100))[: len(pieces)]
            assert rig.store.stored_count == 0
            assert [asked.etag for asked in rig.origin.gets] == [""]  # a probe
            assert rig.origin.landed_bytes == 0

    run(body)


def test_a_bypass_that_is_cut_short_is_an_error() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA, "")
            rig.origin.before = lambda op, name, wanted: Fault(cut_after_bytes=50)
            with pytest.raises(OriginError):
                await received(await rig.reader.read(ReadRequest(NAME, ((0, 99),), bypass=True)))
            rig.origin.before = None
            with pytest.raises(RangeError):
                await rig.reader.read(ReadRequest(NAME, ((END + 1, None),), bypass=True))
            with pytest.raises(ObjectNotFound):
                await rig.reader.read(
                    ReadRequest(ObjectName("bucket", "none"), ((0, 1),), bypass=True)
                )
            assert rig.count("requests_total", op="read", result="error") == 3

    run(body)


def test_a_bypass_of_several_ranges_is_refused() -> None:
    with pytest.raises(RangeError):
        ReadRequest(NAME, ((0, 1), (2, 3)), bypass=True)


def test_what_is_read_is_counted_by_where_it_came_from() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            await fill(rig)
            await rig.read((0, 100))
            assert await hit(rig, read_of((0, 10))) == DATA[:10]
            counts: Callable[..., float] = rig.count
            assert counts("read_bytes_total", source="origin") == END
            assert counts("read_bytes_total", source="disk") == 110
            assert counts("requests_total", op="read", result="filled") == 1
            assert counts("requests_total", op="read", result="hit") == 2

    run(body)


def test_a_chain_of_origins_that_answer_slowly_serves_early_pages_early() -> None:
    async def body() -> None:
        origin = MemoryOrigin(chunk_bytes=64)
        async with open_rig(origin=origin) as rig:
            origin.put(NAME, DATA)
            answer = await rig.reader.read(read_of((0, 1024)))
            segment = await take(answer)
            assert segment is not None
            assert origin.landed_bytes < 512
            segment.close()
            await answer.aclose()

    run(body)
