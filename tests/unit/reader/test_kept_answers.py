"""Answers of small reads are kept for who asks again, as long as they are good, and no more of them
than there may be.
"""

from __future__ import annotations

from typing import Any

import pytest

from cachesvc.core.blocks import slices
from cachesvc.core.request import SMALL_BODY_BYTES
from cachesvc.core.types import ByteRange, Geometry
from cachesvc.small import _ENTRY_BYTES, SmallReads
from tests.support import FILE_BYTES, GEOMETRY, NAME, blocks_of, open_rig, pattern, run
from tests.unit.reader.sample import answered, expected, fill
from tests.unit.reader.test_small import EPOCH, PAGE_BYTES, by_hit, request_of, small


@pytest.mark.parametrize("why", ["dropped", "evicted", "its device failed", "its file was closed"])
def test_what_was_kept_goes_with_the_open_file_of_its_block(why: str) -> None:
    async def body() -> None:
        async with open_rig(capacity_bytes=7 * FILE_BYTES) as rig:
            version = await fill(rig)
            for _ in range(3):
                kept = small(rig, version, (5, 55))
            assert kept is not None
            assert small(rig, version, (5, 55)) is kept
            block, stock = blocks_of(version)[0], rig.store._stock
            (device,) = rig.store.devices
            if why == "dropped":
                pin = rig.store.hold(block)
                assert pin is not None
                rig.store.drop(pin, "page")
                pin.close()
            elif why == "evicted":
                other = rig.origin.put(NAME, pattern(9 * GEOMETRY.block_bytes, seed=5))
                rig.versions.forget(version)
                await rig.read()
                assert rig.count("evicted_bytes_total", reason="capacity") > 0
                assert other != version
            elif why == "its device failed":
                stock.disk_error(device, OSError(5, "as told"))
            else:
                rig.store.open_blocks.max_idle_count = 0
                last = rig.store.hold(blocks_of(version)[1])
                assert last is not None
                last.close()
            before = rig.count("requests_total", op="read", result="hit")
            again = small(rig, version, (5, 55))
            if why == "its file was closed":
                assert again == by_hit(rig, version, (5, 55))
            else:
                assert again is None
                assert rig.count("requests_total", op="read", result="hit") == before

    run(body)


def test_no_more_is_kept_than_the_limit_and_what_is_asked_for_again_stays() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            limit = 40 * (_ENTRY_BYTES + 300)
            reader = rig.reader
            table = SmallReads(
                rig.store, GEOMETRY, reader._checked_page, reader._hit_small, max_kept_bytes=limit
            )
            hot = request_of(version, (0, 100))
            for _ in range(3):
                first = answered(table, hot, EPOCH)
            for number in range(1000):
                start = number % 1000 + number // 1000
                end = min(start + 1 + number % 90, (start // PAGE_BYTES + 1) * PAGE_BYTES)
                for _ in range(3):
                    assert answered(table, request_of(version, (start, end)), EPOCH) is not None
                assert answered(table, hot, EPOCH) is first
                held = sum(
                    len(request) + len(kept.frame) + _ENTRY_BYTES
                    for request, kept in table._kept._values.items()
                )
                assert held == table.kept_bytes <= limit

    run(body)


def test_what_is_asked_for_twice_is_kept_when_it_is_asked_for_again() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version, table = await fill(rig), rig.reader.small
            once = [request_of(version, (start, start + 9)) for start in range(0, 90, 9)]
            for request in once:
                assert answered(table, request, EPOCH) is not None
            assert table.kept_bytes == 0
            assert answered(table, once[3], EPOCH) is not None
            assert table.kept_bytes == len(once[3]) + _ENTRY_BYTES
            third = answered(table, once[3], EPOCH)
            assert third is not None
            assert table.kept_bytes == len(once[3]) + len(third) + _ENTRY_BYTES
            assert answered(table, once[3], EPOCH) is third

    run(body)


def test_what_is_too_large_for_a_small_read_is_neither_answered_nor_kept() -> None:
    page_bytes = 2 * SMALL_BODY_BYTES
    geometry = Geometry(4 * page_bytes, page_bytes, page_bytes, 4 * page_bytes)

    async def body() -> None:
        async with open_rig(geometry=geometry) as rig:
            version = rig.origin.put(NAME, pattern(3 * page_bytes))
            await rig.read()
            for _ in range(3):
                start, end = page_bytes, page_bytes + SMALL_BODY_BYTES
                assert small(rig, version, (start, end + 1)) is None
            assert rig.reader.small.kept_bytes == 0
            for _ in range(3):
                assert small(rig, version, (start, end)) is not None
            assert rig.reader.small.kept_bytes > 0

    run(body)


def test_what_is_being_answered_while_it_is_distrusted_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version, table = await fill(rig), rig.reader.small
            found, wrong = table._found, list(slices(version, ByteRange(5, 55), GEOMETRY))
            for _ in range(2):
                assert small(rig, version, (5, 55)) is not None
            assert table.kept_bytes > 0

            def meanwhile(*wanted: Any) -> Any:
                body = found(*wanted)
                table.forget(wrong)  # as another thread would
                return body

            monkeypatch.setattr(table, "_found", meanwhile)
            assert small(rig, version, (5, 55)) is not None
            assert [kept.frame for kept in table._kept.values() if kept.frame] == []

    run(body)


def test_a_kept_answer_of_another_epoch_is_replaced_by_the_first_who_asks() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version, table = await fill(rig), rig.reader.small
            request = request_of(version, (5, 55))
            for epoch in (1, 1, 1):
                answered(table, request, epoch)
            table._asked_before = lambda what: False  # so long ago was that
            answered(table, request, 2)
            assert [kept.epoch for kept in table._kept.values()] == [2]

    run(body)


def test_whoever_asks_with_verify_has_kept_answers_of_the_block_made_anew() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            table = rig.reader.small
            for _ in range(3):
                first, other = small(rig, version, (5, 55)), small(rig, version, (1030, 1040))
            assert first is not None
            kept = table._kept.get(request_of(version, (5, 55)))
            assert kept is not None
            kept.frame = first[:-1] + b"?"  # its memory rots
            assert small(rig, version, (5, 55)) != first
            assert await rig.read((5, 55), verify=True) == expected(5, 55)
            assert small(rig, version, (5, 55)) == first
            assert small(rig, version, (1030, 1040)) is other
            assert table.kept_bytes == sum(kept.size_bytes for kept in table._kept.values())

    run(body)


def test_what_was_kept_of_another_file_of_its_block_is_not_answered() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version, table = await fill(rig), rig.reader.small
            for _ in range(3):
                first = small(rig, version, (5, 55))
            (kept,) = table._kept.values()
            other = rig.store.hold(blocks_of(version)[1])
            assert other is not None
            kept.frame, kept.file = b"of long ago", other.held.file
            other.close()
            assert small(rig, version, (5, 55)) == first

    run(body)
