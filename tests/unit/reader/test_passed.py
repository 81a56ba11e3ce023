"""Reads that take descriptors: from the store, as soon as it has the pages, else from memory; those
that would rather not wait for the store, from memory first.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import pytest

from cachesvc.answer import Segment, take
from cachesvc.core.blocks import cuts
from cachesvc.core.errors import OriginError, Overloaded
from cachesvc.core.format import checksum
from cachesvc.disk.memory import MemoryDisk
from tests.support import (
    FILE_BYTES,
    GEOMETRY,
    NAME,
    Rig,
    blocks_of,
    open_rig,
    read_of,
    run,
    taken_bytes,
)
from tests.unit.reader.sample import DATA, END, RANGES, expected

PAGE = GEOMETRY.page_bytes


def file_bytes(segment: Segment) -> bytes:
    """The bytes of a passed segment, its whole pages checked as a receiver does."""
    assert segment.pin is not None
    assert segment.file_offset is not None
    assert segment.parts == []
    start, end = segment.file_offset, segment.file_offset + segment.length_bytes
    length = segment.pin.held.trailer.block.length_bytes
    first, beyond = start // PAGE * PAGE, min(-(-end // PAGE) * PAGE, length)
    data = segment.pin.pread(first, beyond)
    sums = [checksum(data[a - first : b - first]) for a, b in cuts(first, beyond, PAGE)]
    assert segment.checksums == b"".join(sums)
    return data[start - first : end - first]


async def read(
    rig: Rig, *ranges: tuple[int, int | None], landed: bool = False
) -> tuple[bytes, list[bool]]:
    """The bytes, and of each segment whether it was passed as a file. landed: what has landed may
    come as bytes.
    """
    request = replace(read_of(*ranges), descriptors=True, landed_as_bytes=landed)
    answer = rig.reader.hit(request) or await rig.reader.read(request)
    pieces, passed = [], []
    try:
        while (segment := await take(answer)) is not None:
            passed.append(segment.file_offset is not None)
            pieces.append(file_bytes(segment) if passed[-1] else taken_bytes(segment, PAGE))
            segment.close()
    finally:
        await answer.aclose()
    return b"".join(pieces), passed


@pytest.mark.parametrize("hot", [True, False])
def test_any_range_is_passed_in_one_piece_a_block(hot: bool) -> None:
    async def body() -> None:
        for start, end in RANGES:
            async with open_rig() as rig:
                rig.origin.put(NAME, DATA)
                if hot:
                    await rig.read()
                data, passed = await read(rig, (start, end))
                assert data == expected(start, end)
                touched = {at // GEOMETRY.block_bytes for at in range(END)[start:end]}
                assert passed == [True] * len(touched)

    run(body)


def test_who_waits_for_files_gets_them_when_they_are_stored() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            both = await asyncio.gather(read(rig, (0, None)), rig.read(), read(rig, (5, 1500)))
            assert [both[0][0], both[1], both[2][0]] == [DATA, DATA, DATA[5:1500]]
            assert all(both[0][1] + both[2][1])
            assert rig.origin.landed_bytes == END

    run(body)


def test_what_lands_comes_as_bytes_and_what_is_stored_as_files() -> None:
    async def body() -> None:
        for start, end in RANGES:
            async with open_rig() as rig:
                rig.origin.put(NAME, DATA)
                await rig.read((0, GEOMETRY.block_bytes))
                data, passed = await read(rig, (start, end), landed=True)
                assert data == expected(start, end)
                if (start, end) == (0, None):
                    assert passed[:2] == [True, False], "block 0 is stored, block 1 lands"
                data, passed = await read(rig, (start, end), landed=True)
                assert data == expected(start, end)
                assert all(passed)

    run(body)


def test_bytes_come_before_their_extent_is_whole() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            request = replace(read_of((0, None)), descriptors=True, landed_as_bytes=True)
            answer = await rig.reader.read(request)
            first = await take(answer)
            assert first is not None
            assert first.file_offset is None
            assert 0 < rig.origin.landed_bytes < GEOMETRY.block_bytes
            assert taken_bytes(first, PAGE) == DATA[: first.length_bytes]
            await answer.aclose()

    run(body)


def test_a_block_that_is_present_in_part_is_passed_whole() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            await rig.read((300, 310))
            data, passed = await read(rig, (0, GEOMETRY.block_bytes))
            assert (data, passed) == (DATA[: GEOMETRY.block_bytes], [True])

    run(body)


def test_without_a_store_everything_comes_from_memory() -> None:
    async def body() -> None:
        async with open_rig(capacity_bytes=1) as rig:
            rig.origin.put(NAME, DATA)
            data, passed = await read(rig, (0, None))
            assert data == DATA
            assert not any(passed)

    run(body)


def test_a_failing_origin_fails_the_answer() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            rig.origin.before = failing
            with pytest.raises(OriginError):
                await read(rig, (0, None))

    async def failing(op: str, *_: object) -> None:
        if op != "head":
            raise OriginError("not now")

    run(body)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_store_takes_and_evicts_the_bytes_are_right(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        dice = random.Random(seed)
        disk = MemoryDisk()
        async with open_rig(disks=[disk], capacity_bytes=dice.randint(1, 4) * FILE_BYTES) as rig:
            version = rig.origin.put(NAME, DATA)
            write = rig.store.write
            monkeypatch.setattr(
                rig.store, "write", lambda *what: dice.random() < 0.7 and write(*what)
            )

            async def one() -> None:
                start = dice.randrange(END)
                end = dice.randrange(start, END) + 1
                with suppress(Overloaded):  # pages may leave faster than they are read
                    if dice.random() < 0.3:
                        assert await rig.read((start, end)) == DATA[start:end]
                    else:
                        landed = dice.random() < 0.5
                        data, _ = await read(rig, (start, end), landed=landed)
                        assert data == DATA[start:end]

            for _ in range(30):
                await asyncio.gather(*(one() for _ in range(dice.randint(1, 5))))
                pin = rig.store.hold(dice.choice(blocks_of(version)))
                if pin is not None:
                    rig.store.drop(pin, "page")
                    pin.close()

    run(body)
