"""A read gives the object's bytes, or an error that says why: whatever the range."""

from __future__ import annotations

import pytest

from cachesvc.core.errors import ObjectNotFound, RangeError
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.types import ObjectVersion
from tests.support import NAME, open_rig, read_of, run
from tests.unit.reader.sample import BIG, DATA, END, RANGES, expected, hit


@pytest.mark.parametrize("wanted", RANGES)
@pytest.mark.parametrize("verify", [False, True])
def test_any_range_is_the_slice_of_the_object(wanted: tuple[int, int | None], verify: bool) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            for _ in range(2):  # from the origin, then from disk
                assert await rig.read(wanted, verify=verify) == expected(*wanted)
            assert await hit(rig, read_of(wanted)) == expected(*wanted)

    run(body)


def test_many_ranges_come_one_after_another_in_the_order_of_the_request() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            wanted = [*reversed(RANGES), *RANGES]
            for _ in range(2):
                assert await rig.read(*wanted) == b"".join(expected(*one) for one in wanted)
            assert rig.origin.landed_bytes == END

    run(body)


def test_an_empty_object_has_one_empty_range() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, b"")
            for wanted in ((0, None), (0, 0), (0, 100)):
                assert await rig.read(wanted) == b""
                assert await hit(rig, read_of(wanted)) == b""
            with pytest.raises(RangeError, match="0 bytes"):
                await rig.read((1, None))
            assert [asked.op for asked in rig.origin.log] == ["get", "head"]
            assert rig.origin.landed_bytes == 0

    run(body)


@pytest.mark.parametrize("wanted", [(END + 1, None), (END + 1, END + 2), (-1, 5), (5, 4)])
def test_a_range_that_cannot_be_is_an_error_that_names_the_object(
    wanted: tuple[int, int | None],
) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            rig.origin.put(NAME, DATA)
            for _ in range(2):
                with pytest.raises(RangeError, match="s3://bucket/key"):
                    await rig.read((0, 1), wanted)
            with pytest.raises(RangeError):
                rig.reader.hit(read_of(wanted))

    run(body)


def test_a_request_for_too_many_bytes_or_ranges_is_refused() -> None:
    async def body() -> None:
        async with open_rig(geometry=BIG) as rig:
            version = ObjectVersion(NAME, '"v"', 1 << 40)
            request = ReadRequest(NAME, ((0, None),), version)
            with pytest.raises(RangeError, match="cut it up"):
                await rig.reader.read(request)
            with pytest.raises(RangeError, match="cut it up"):
                rig.reader.hit(request)
        with pytest.raises(RangeError, match="1024"):
            read_of(*([(0, 1)] * 1025))
        with pytest.raises(RangeError):
            ReadRequest(NAME, ())

    run(body)


def test_a_missing_object_is_not_found_and_named() -> None:
    async def body() -> None:
        async with open_rig() as rig:
            with pytest.raises(ObjectNotFound, match="s3://bucket/key"):
                await rig.read()
            with pytest.raises(ObjectNotFound, match="s3://bucket/key"):
                await rig.reader.stat(StatRequest(NAME))
            assert rig.reader.hit(read_of()) is None
            assert rig.count("requests_total", op="read", result="error") == 1
            assert rig.count("requests_total", op="stat", result="error") == 1

    run(body)
