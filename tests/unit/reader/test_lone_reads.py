"""Hits of one range within one block: the answer that the common way gives, or none."""

from __future__ import annotations

from itertools import product

import pytest

from cachesvc.answer import FilePart
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectVersion, Source
from cachesvc.device import Device
from cachesvc.lane_answer import ReadyHit, hit_items
from cachesvc.lane_sending import Item
from cachesvc.lone_reads import LoneReads
from cachesvc.wire import codec
from cachesvc.wire.frame import Kind, encode
from tests.support import NAME, Rig, open_rig, run
from tests.unit.reader.sample import BIG

EPOCH = 77
DATA_BYTES = 3 * BIG.block_bytes + 5 * BIG.page_bytes + 77


def lone_reads(rig: Rig) -> LoneReads:
    return LoneReads(rig.store, rig.reader.small.known, rig.reader.stored, rig.reader.geometry)


def request_of(
    version: ObjectVersion | None, *ranges: tuple[int, int | None], verify: bool = False
) -> bytes:
    request = ReadRequest(NAME, ranges, version, verify=verify)
    return encode(Kind.READ, codec.pack_read(request, EPOCH))


def bytes_of(items: list[Item]) -> tuple[bytes, list[tuple[int, int]]]:
    """All that is sent, and which of it leaves from files."""
    out, from_files = b"", []
    for item in items:
        if isinstance(item, FilePart):
            out += item.pin.pread(item.offset, item.offset + item.length_bytes)
            from_files.append((item.offset, item.length_bytes))
        else:
            assert isinstance(item, memoryview)
            out += bytes(item)
    return out, from_files


def open_files(rig: Rig) -> int:
    """How many block files are pinned."""
    return len(rig.store.open_blocks) - rig.store.open_blocks.idle_count


async def filled(rig: Rig) -> ObjectVersion:
    version = rig.origin.put(NAME, bytes(range(251)) * (DATA_BYTES // 251 + 1))
    assert len(await rig.read()) == version.size_bytes
    return version


def test_what_is_answered_is_what_the_common_way_sends_byte_for_byte() -> None:
    page, block = BIG.page_bytes, BIG.block_bytes

    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=1 << 24) as rig:
            version = await filled(rig)
            end = version.size_bytes
            borders = {0, 1, page - 1, page, page + 9, 5 * page, block - page - 3, block - 1, block}
            borders |= {block + page, 2 * block + 3 * page + 1, end - page, end - 77, end - 1, end}
            reads, answers = lone_reads(rig), 0
            for start, beyond in product(sorted(borders), repeat=2):
                found = reads.answer(request_of(version, (start, beyond)), EPOCH)
                one_block = start < beyond and start // block == (beyond - 1) // block
                small = beyond - start <= 16 << 10 and start // page == (beyond - 1) // page
                assert (found is not None) == (one_block and not small), (start, beyond)
                if found is None:
                    continue
                answers += 1
                hit = rig.reader.hit(ReadRequest(NAME, ((start, beyond),), version))
                assert hit is not None
                assert bytes_of(found.items) == bytes_of(hit_items(hit, EPOCH))
                assert [(one.object_start, one.length_bytes) for one in found.slices] == [
                    (start, beyond - start)
                ]
                assert open_files(rig) == 1
                hit.close()
                found.close()
                assert open_files(rig) == 0
            assert answers > 30

    run(body)


def test_what_is_no_stored_range_of_a_named_version_goes_the_common_way() -> None:
    block = BIG.block_bytes

    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=1 << 24) as rig:
            version = await filled(rig)
            end, reads = version.size_bytes, lone_reads(rig)
            other = ObjectVersion(NAME, '"other"', end)
            weak = ObjectVersion(NAME, 'W/"weak"', end)
            for request in (
                request_of(None, (0, block)),
                request_of(version, (0, None)),
                request_of(version, (0, block + 1)),
                request_of(version, (0, block), (block, 2 * block)),
                request_of(version, (3 * block, end + 1)),
                request_of(version, (end + 5, end + 9)),
                request_of(version, (0, block), verify=True),
                request_of(other, (0, block)),
                request_of(weak, (0, block)),
                request_of(version, (0, block))[:-1],
                request_of(version, (0, block)) * 2,
            ):
                assert reads.answer(request, EPOCH) is None
            assert len(rig.reader.small.known) == 0
            found = reads.answer(request_of(version, (0, block)), EPOCH)
            assert found is not None
            found.close()
            assert len(rig.reader.small.known) == 1
            assert open_files(rig) == 0

    run(body)


def test_of_a_file_that_is_open_only_the_pages_are_sent_that_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, block, told = BIG.page_bytes, BIG.block_bytes, list[bytes]()
    touch = Device.touch

    def listening(device: Device, block_id: bytes) -> None:
        told.append(block_id)
        touch(device, block_id)

    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=1 << 24) as rig:
            version = rig.origin.put(NAME, bytes(range(251)) * (DATA_BYTES // 251 + 1))
            await rig.read((0, 4 * page))
            reads, present = lone_reads(rig), BIG.extent_min_bytes
            monkeypatch.setattr(Device, "touch", listening)
            for start, end in (
                (present, block),
                (0, block),
                (9, block - 5),
                (0, present + 1),
                (present - 1, present + page),
                (present + 2 * page, present + 4 * page),
                (block, 2 * block),
            ):
                assert reads.answer(request_of(version, (start, end)), EPOCH) is None
            assert told == [], "who sends nothing tells the eviction policy of nothing"
            for start, end in ((0, present), (9, present - 9), (page, 3 * page)):
                found = reads.answer(request_of(version, (start, end)), EPOCH)
                assert found is not None
                found.close()
                assert len(told) == 1
                told.clear()

    run(body)


@pytest.mark.parametrize("wanted", [(0, BIG.block_bytes), (9, BIG.block_bytes - 9)])
def test_an_answer_that_cannot_be_made_leaves_no_pin(
    monkeypatch: pytest.MonkeyPatch, wanted: tuple[int, int]
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=1 << 24) as rig:
            version = await filled(rig)
            monkeypatch.setattr("cachesvc.lone_reads._head", fails)
            with pytest.raises(MemoryError):
                lone_reads(rig).answer(request_of(version, wanted), EPOCH)
            assert open_files(rig) == 0

    run(body)


def test_a_page_that_is_wrong_is_found_where_it_is_sent_in_part() -> None:
    page, block = BIG.page_bytes, BIG.block_bytes

    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=1 << 24) as rig:
            version = await filled(rig)
            reads = lone_reads(rig)
            request = request_of(version, (9, 5 * page))

            def answered() -> ReadyHit | None:
                return reads.answer(request, EPOCH)

            found = answered()
            assert found is not None
            file = found.pins[0].held.file
            found.close()
            file.pwrite(b"\xff" * 20, 100)
            assert answered() is None, "its block is dropped"
            assert rig.count("corrupt_blocks_total", check="page") == 1
            assert len(await rig.read((0, block))) == block
            again = answered()
            assert again is not None
            again.close()
            assert open_files(rig) == 0

    run(body)


@pytest.mark.parametrize("epoch", [0, 1, (1 << 64) - 1])
def test_the_epoch_told_is_the_present_one(epoch: int) -> None:
    async def body() -> None:
        async with open_rig(geometry=BIG, capacity_bytes=1 << 24) as rig:
            version = await filled(rig)
            hit = rig.reader.hit(ReadRequest(NAME, ((0, BIG.block_bytes),), version))
            found = lone_reads(rig).answer(request_of(version, (0, BIG.block_bytes)), epoch)
            assert hit is not None
            assert found is not None
            assert hit.segments[0].source is Source.DISK
            assert bytes_of(found.items) == bytes_of(hit_items(hit, epoch))
            hit.close()
            found.close()

    run(body)
