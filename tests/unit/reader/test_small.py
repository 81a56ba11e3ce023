"""Small hot reads: the answer that any other way gives, and never one that is no longer good."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectVersion
from cachesvc.disk.memory import MemoryDisk
from cachesvc.lane_answer import hit_items
from cachesvc.small import MAX_UNTOLD, Hit
from cachesvc.wire import codec, lone
from cachesvc.wire.frame import Kind, encode
from cachesvc.wire.v1 import cache_pb2
from cachesvc.wire.varint import pack_varint
from tests.support import GEOMETRY, NAME, Rig, blocks_of, open_rig, run
from tests.unit.reader.sample import DATA, END, RANGES, answered, expected, fill

PAGE_BYTES = GEOMETRY.page_bytes
EPOCH = 77


def request_of(version: ObjectVersion | None, *ranges: tuple[int, int | None]) -> bytes:
    return encode(Kind.READ, codec.pack_read(ReadRequest(NAME, ranges, version), EPOCH))


def small(rig: Rig, version: ObjectVersion | None, *ranges: tuple[int, int | None]) -> bytes | None:
    return answered(rig.reader.small, request_of(version, *ranges), EPOCH)


def by_hit(rig: Rig, version: ObjectVersion, wanted: tuple[int, int | None]) -> bytes:
    """The same answer as the lane sends it otherwise."""
    answer = rig.reader.hit(ReadRequest(NAME, (wanted,), version))
    assert answer is not None
    try:
        sent = hit_items(answer, EPOCH)
        assert all(isinstance(item, memoryview) for item in sent)
        return b"".join(bytes(item) for item in sent)  # type: ignore[arg-type]
    finally:
        answer.close()


def test_a_small_read_is_answered_as_a_hit_is_byte_for_byte() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            wanted = [
                (start, end) for start in range(0, 300, 7) for end in range(start + 1, 300, 9)
            ]
            wanted += [(END - 9, END), (END - 1, END), *((a, b) for a, b in RANGES if b)]
            answered = 0
            for start, end in wanted:
                inside = 0 <= start < end <= END and start // PAGE_BYTES == (end - 1) // PAGE_BYTES
                first = small(rig, version, (start, end))
                assert (first is not None) == inside
                if first is not None:
                    answered += 1
                    assert first == by_hit(rig, version, (start, end))
                    assert small(rig, version, (start, end)) == first
                    third = small(rig, version, (start, end))
                    assert third == first
                    assert small(rig, version, (start, end)) is third
            assert answered > 300

    run(body)


def test_what_is_not_a_stored_range_of_a_named_version_goes_the_common_way() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            weak = ObjectVersion(NAME, 'W/"weak"', END)
            other = ObjectVersion(NAME, '"other"', END)
            assert small(rig, None, (0, 9)) is None
            assert small(rig, version, (0, 9), (20, 30)) is None
            assert small(rig, version, (0, None)) is None
            assert small(rig, weak, (0, 9)) is None
            assert small(rig, other, (0, 9)) is None
            whole = request_of(version, (0, 9))
            for cut in range(len(whole)):
                assert answered(rig.reader.small, whole[:cut], EPOCH) is None
            assert answered(rig.reader.small, whole + whole, EPOCH) is None
            assert rig.count("requests_total", op="read", result="hit") == 0
            assert answered(rig.reader.small, whole, EPOCH) is not None

    run(body)


def test_it_counts_as_a_hit_each_time() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            for times in range(1, 4):
                assert small(rig, version, (5, 55)) is not None
                assert rig.count("requests_total", op="read", result="hit") == times
                assert rig.count("read_bytes_total", source="disk") == 50 * times
            (device,) = rig.store.devices
            slot = device.index.get(blocks_of(version)[0].id)
            touched: list[int] = []
            device.index.touch = touched.append  # type: ignore[assignment,method-assign]
            assert small(rig, version, (5, 55)) is not None
            assert small(rig, version, (6, 56)) is not None
            assert touched == [slot, slot]

    run(body)


def test_bytes_that_rot_on_the_disk_are_found_by_who_looks_and_not_sent_by_who_does_not() -> None:
    async def body() -> None:
        disk = MemoryDisk()
        async with open_rig(disks=[disk]) as rig:
            version = await fill(rig)
            for _ in range(3):
                kept = small(rig, version, (5, 55))
            pin = rig.store.hold(blocks_of(version)[0])
            assert pin is not None
            pin.held.file.pwrite(b"\xff\x00\xff", 7)
            pin.close()
            assert small(rig, version, (5, 55)) == kept
            assert kept is not None
            assert kept.endswith(DATA[5:55])
            assert small(rig, version, (5, 56)) is None
            assert rig.count("corrupt_blocks_total", check="page") == 1
            assert small(rig, version, (5, 55)) is None
            assert await rig.read((5, 56)) == expected(5, 56)
            assert small(rig, version, (5, 55)) == kept

    run(body)


def test_the_epoch_told_is_the_present_one() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            request = request_of(version, (5, 55))
            answers = [answered(rig.reader.small, request, epoch) for epoch in (1, 2, 0, 2)]
            assert answers[1] == answers[3]
            assert len({*answers}) == 3
            for answer, epoch in zip(answers, (1, 2, 0, 2), strict=True):
                assert answer is not None
                header = answer[16 : 16 + int.from_bytes(answer[4:8], "big")]
                message = cache_pb2.ReadHeader.FromString(header)
                assert message.epoch == epoch

    run(body)


def test_a_request_that_names_no_valid_object_goes_the_common_way() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            for name in (("bucket", ""), ("", "key"), ("bucket", "k" * 1025)):
                object_ = cache_pb2.ObjectName(bucket=name[0], key=name[1])
                message = cache_pb2.ReadRequest(object=object_, version=codec.pack_version(version))
                message.ranges.add(start=0, end=9)
                message.epoch = EPOCH
                frame = encode(Kind.READ, message.SerializeToString())
                assert lone.split_read(frame) is not None
                assert answered(rig.reader.small, frame, EPOCH) is None
            start = lone.request_start(version)
            assert small(rig, version, (0, 9)) is not None
            frame = lone.pack_read(start.replace(b"bucket", b"buck\xfft"), 0, 9, EPOCH)
            assert lone.split_read(frame) is not None
            assert answered(rig.reader.small, frame, EPOCH) is None

    run(body)


def junk_fields(version: ObjectVersion, start: int) -> bytes:
    """The request for a byte, its object with an unknown field."""
    object_ = cache_pb2.ObjectName(bucket=NAME.bucket, key=NAME.key).SerializeToString()
    fields = [
        b"\x0a" + pack_varint(len(object_) + 4) + object_ + b"\x7a\x02hi",
        cache_pb2.ReadRequest(version=codec.pack_version(version)).SerializeToString(),
        cache_pb2.ReadRequest(
            ranges=[cache_pb2.Range(start=start, end=start + 1)], epoch=EPOCH
        ).SerializeToString(),
    ]
    return encode(Kind.READ, b"".join(fields))


def test_a_request_with_more_in_it_than_it_needs_goes_the_common_way() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            assert small(rig, version, (5, 6)) is not None
            assert lone.split_read(junk_fields(version, 5)) is not None
            assert answered(rig.reader.small, junk_fields(version, 5), EPOCH) is None

    run(body)


def test_what_is_not_here_is_not_remembered() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            other = ObjectVersion(NAME, '"other"', END)
            assert small(rig, version, (1, 2)) is not None
            for start in range(50):
                assert small(rig, other, (start, start + 1)) is None
            assert len(rig.reader.small.known) == 1

    run(body)


def test_what_is_told_of_a_hit_are_places_within_its_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            block, told = blocks_of(version)[2], list[Hit]()
            monkeypatch.setattr(rig.reader.small, "_hits", told.extend)
            wanted = block.start + 5, block.start + 55
            for _ in range(4):
                assert small(rig, version, wanted) is not None
            assert told == [(block, 5, 55, request_of(version, wanted))] * 4

    run(body)


def test_a_hit_that_cannot_be_counted_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            table, told = rig.reader.small, list[int]()

            def hits(found: Sequence[Hit]) -> None:
                starts = [start for _, start, _, _ in found]
                if 1 in starts:
                    raise IndexError("a defect")
                told.extend(starts)

            monkeypatch.setattr(table, "_hits", hits)
            for start in range(4):
                answer = table.answer(request_of(version, (start, start + 1)), EPOCH)
                assert answer is not None
                table.sent()
            table.settle()
            assert told == [0, 2, 3]

    run(body)


def test_what_was_sent_is_counted_when_somebody_looks_or_there_is_much_of_it() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            version = await fill(rig)
            table = rig.reader.small

            def send(count: int) -> None:
                for start in range(count):
                    answer = table.answer(request_of(version, (start, start + 1)), EPOCH)
                    assert answer is not None
                    table.sent()

            def hits() -> float:
                return rig.count("requests_total", op="read", result="hit")

            before = hits()
            send(MAX_UNTOLD - 1)
            assert hits() == before + MAX_UNTOLD - 1, "who looks at the metrics sees them counted"
            send(MAX_UNTOLD - 1)
            assert len(table._untold) == MAX_UNTOLD - 1
            send(1)
            assert not table._untold
            assert hits() == before + 2 * MAX_UNTOLD - 1

    run(body)
