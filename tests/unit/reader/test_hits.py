"""Hits: the same answer as a read, and only when all of it is stored."""

from __future__ import annotations

import pytest

from cachesvc.answer import FilePart, take
from cachesvc.core.request import ReadRequest, StatRequest
from tests.support import (
    NAME,
    block_data,
    blocks_of,
    open_rig,
    pattern,
    read_of,
    run,
    store_pages,
    taken_bytes,
)
from tests.unit.reader.sample import BIG, DATA, fill, hit


def test_a_hit_is_the_same_answer_as_a_read() -> None:
    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=8 << 20) as rig:
            data = pattern((1 << 20) + 70_001)
            rig.origin.put(NAME, data)
            await rig.read()
            ranges = [(0, None), (1, 65_536), (1, 65_537), (10_000, 300_000), (700_000, 700_001)]
            ranges += [(16_384, 32_768), (500_000, 600_000), (len(data) - 1, len(data))]
            for wanted in ranges:
                request = read_of(wanted)
                one, other = rig.reader.hit(request), await rig.reader.read(request)
                assert one is not None
                assert one.version == other.version
                assert one.fresh_for_s == other.fresh_for_s
                while (left := await take(one)) is not None:
                    right = await take(other)
                    assert right is not None
                    assert (left.start, left.length_bytes) == (right.start, right.length_bytes)
                    assert (left.source, left.checksums) == (right.source, right.checksums)
                    kinds = [[type(part) for part in it.parts] for it in (left, right)]
                    assert kinds[0] == kinds[1]
                    got = taken_bytes(left, BIG.page_bytes)
                    assert got == taken_bytes(right, BIG.page_bytes)
                    assert got == data[left.start : left.start + left.length_bytes]
                    left.close()
                    right.close()
                assert await take(other) is None

    run(body)


def test_a_large_answer_goes_from_the_file_and_only_cut_pages_from_memory() -> None:
    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=8 << 20) as rig:
            data = pattern(512 << 10)
            rig.origin.put(NAME, data)
            await rig.read()
            answer = rig.reader.hit(read_of((100, 300_000)))
            assert answer is not None
            (segment,) = answer.segments
            kinds = [isinstance(part, FilePart) for part in segment.parts]
            assert kinds == [False, True, False]
            assert taken_bytes(segment, BIG.page_bytes) == data[100:300_000]
            answer.close()

    run(body)


def test_what_is_partly_stored_is_no_hit() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = rig.origin.put(NAME, DATA)
            await rig.reader.stat(StatRequest(NAME))
            block = blocks_of(version)[0]
            store_pages(rig.store, block, block_data(block, DATA), 0, 4)
            assert rig.reader.hit(read_of((0, 513))) is None
            assert rig.reader.hit(read_of((0, 512), (2000, 2001))) is None
            assert await hit(rig, read_of((0, 512))) == DATA[:512]
            assert rig.disks[0].open_count <= 1  # type: ignore[attr-defined]

    run(body)


def test_a_version_that_nobody_checked_is_no_hit() -> None:
    async def body() -> None:
        async with open_rig(revalidate_s=5.0) as rig:
            version = await fill(rig)
            assert await hit(rig, read_of()) == DATA
            rig.clock.now += 5.1
            assert rig.reader.hit(read_of()) is None
            assert await hit(rig, ReadRequest(NAME, ((0, None),), version)) == DATA
            assert rig.reader.hit(ReadRequest(NAME, ((0, 1),), max_age_s=0.0)) is None
            assert rig.reader.hit(ReadRequest(NAME, ((0, 1),), bypass=True)) is None
            assert rig.reader.hit(read_of((0, 1), verify=True)) is None  # a page at a time

    run(body)


@pytest.mark.parametrize("broken", ["hit", "_count"])
def test_a_hit_that_breaks_leaves_nothing_pinned(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the loop is closed")

    async def body() -> None:
        async with open_rig() as rig:
            await fill(rig)
            owner = rig.reader.readahead if broken == "hit" else rig.reader
            with monkeypatch.context() as patch:
                patch.setattr(owner, broken, fail)
                with pytest.raises(RuntimeError, match="closed"):
                    rig.reader.hit(read_of())
            assert rig.store.open_blocks.pin_count == 0

    run(body)
