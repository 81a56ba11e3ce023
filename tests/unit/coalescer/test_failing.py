"""A flight that fails: everybody on it hears why, what landed is served, nothing is remembered."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import closing

import pytest

from cachesvc.core.errors import (
    AccessDenied,
    InternalError,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    Overloaded,
)
from cachesvc.core.types import ByteRange, ObjectName
from cachesvc.disk.memory import MemoryDisk
from cachesvc.origin.memory import Fault, MemoryOrigin
from tests.support import NAME, blocks_of, open_rig, run
from tests.unit.coalescer.sample import ALL, DATA, flight_of, landed


@pytest.mark.parametrize(
    "kind", [OriginError, ObjectChanged, ObjectNotFound, AccessDenied, Overloaded]
)
def test_a_failure_reaches_everybody_and_is_not_remembered(kind: type[OriginError]) -> None:
    async def body() -> None:
        async with open_rig() as rig:
            fail = True

            def before(op: str, name: ObjectName, wanted: ByteRange | None) -> None:
                if fail:
                    raise kind("told so")

            rig.origin.before = before
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            holds = [rig.coalescer.join(block, ALL) for _ in range(5)]
            waits = [flight_of(hold, 5).wait(5) for hold in holds]
            for error in await asyncio.gather(*waits, return_exceptions=True):
                assert type(error) is kind
                assert str(error) == "told so"
            fail = False
            again = rig.coalescer.join(block, ALL)  # while those who failed still hold on
            await flight_of(again, 5).wait(5)
            for hold in [*holds, again]:
                hold.close()
            assert rig.store.stored_count == 1

    run(body)


@pytest.mark.parametrize("write_bytes", [128, 1024])
def test_what_landed_before_a_failure_is_served_and_the_rest_fails(write_bytes: int) -> None:
    async def body() -> None:
        async with open_rig(write_bytes=write_bytes) as rig:
            rig.origin.before = lambda op, name, wanted: Fault(cut_after_bytes=300)
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            with pytest.raises(OriginError, match="cut"):
                await flight_of(hold, 2).wait(2)
            await flight_of(hold, 1).wait(1)
            with pytest.raises(OriginError):
                await flight_of(hold, 7).wait(7)
            hold.close()
            pin = rig.store.pin(block)
            assert pin is not None
            with closing(pin):
                assert pin.present == 0b11
                assert pin.page(1) == DATA[128:256]

    run(body)


def test_an_origin_that_breaks_is_an_internal_error_and_no_hang() -> None:
    async def body() -> None:
        async with open_rig() as rig:

            def before(op: str, name: ObjectName, wanted: ByteRange | None) -> None:
                raise ZeroDivisionError

            rig.origin.before = before
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            with pytest.raises(InternalError, match="block 0"):
                await flight_of(hold, 0).wait(0)
            hold.close()

    run(body)


def test_an_origin_that_ends_early_without_an_error_is_no_short_answer() -> None:
    class Lazy(MemoryOrigin):
        async def fetch(self, version, wanted, sink):  # type: ignore[no-untyped-def]
            sink.landed(128)

    async def body() -> None:
        async with open_rig(origin=Lazy()) as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            with pytest.raises(Overloaded):
                await flight_of(hold, 1).wait(1)
            hold.close()

    run(body)


def test_a_store_that_fails_in_the_middle_of_a_flight_costs_nothing_but_its_bytes() -> None:
    async def body() -> None:
        disk = MemoryDisk()
        async with open_rig(disks=[disk]) as rig:
            block = blocks_of(rig.origin.put(NAME, DATA))[0]
            hold = rig.coalescer.join(block, ALL)
            await flight_of(hold, 2).wait(2)

            def fail(op: str) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            disk.fail = fail
            assert await landed(hold, 7) == DATA[896:1024]
            hold.close()
            assert rig.count("unstored_bytes_total") > 0
            assert rig.count("device_healthy", device="memory") == 0

    run(body)
