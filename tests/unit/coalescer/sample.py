"""What the tests of the coalescer fill: an object of six blocks, an origin that can be held back,
and a look at what has landed.
"""

from __future__ import annotations

import asyncio

from cachesvc.core.types import ByteRange, ObjectName
from cachesvc.disk.memory import MemoryDisk
from cachesvc.flight import Flight, Hold
from cachesvc.origin.memory import Fault, MemoryOrigin
from tests.support import GEOMETRY, pattern

DATA = pattern(5 * GEOMETRY.block_bytes + 200)
ALL = 0xFF


class Gate:
    """Holds the origin's GETs back until it is opened."""

    def __init__(self, origin: MemoryOrigin) -> None:
        self.opened = asyncio.Event()
        self.origin = origin
        origin.before = self._before

    async def _wait(self, op: str) -> Fault | None:
        if op == "get":
            await self.opened.wait()
        return None

    def _before(self, op: str, name: ObjectName, wanted: ByteRange | None):  # type: ignore[no-untyped-def]
        return self._wait(op)


def flight_of(hold: Hold, page: int) -> Flight:
    flight = hold.covering(page)
    assert flight is not None
    return flight


async def landed(hold: Hold, page: int) -> bytes:
    """The bytes of a page, once it has landed, from the flight's memory."""
    flight = flight_of(hold, page)
    await flight.wait(page)
    start = page * GEOMETRY.page_bytes
    data = flight.bytes_of(start, min(start + 128, flight.landed_end))
    return b"" if data is None else bytes(data)


def full_store() -> MemoryDisk:
    """A disk that takes nothing."""
    return MemoryDisk(limit_bytes=0)
