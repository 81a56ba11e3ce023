"""A reader that waits for a flight while it holds a filled buffer must not wait for itself.

Story: the store takes no page (its disk is full or failed), so a landed extent stays in memory
until its readers let go. One of them waited for another extent, for which there was no room left
because of the first: both waited for ever, and with them everybody who came later.
"""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.buffers import MIN_BUFFER_BYTES
from cachesvc.coalescer import Coalescer
from cachesvc.core.blocks import BlockRef
from cachesvc.core.errors import Overloaded
from cachesvc.core.types import Geometry, ObjectName
from cachesvc.disk.memory import MemoryDisk
from cachesvc.metrics import Metrics
from cachesvc.origin.memory import MemoryOrigin
from cachesvc.store import Store

GEOMETRY = Geometry(512, 128, 512, 512)


def test_full_buffers_refuse_whom_they_would_never_serve() -> None:
    async def main() -> None:
        origin, metrics = MemoryOrigin(), Metrics()
        store = Store([MemoryDisk()], 0, metrics)
        hop = asyncio.get_running_loop().call_soon
        coalescer = Coalescer(origin, store, metrics, hop, max_buffer_bytes=MIN_BUFFER_BYTES)
        version = origin.put(ObjectName("bucket", "key"), bytes(1024))
        first = coalescer.join(BlockRef(version, 0, GEOMETRY), 0b1111)
        await first.flights[0].wait(3)
        assert coalescer.buffer_bytes == MIN_BUFFER_BYTES
        second = coalescer.join(BlockRef(version, 1, GEOMETRY), 0b1111)
        with pytest.raises(Overloaded, match="try another node"):
            await asyncio.wait_for(second.flights[0].wait(0), 5)
        second.close()
        first.close()
        assert (coalescer.buffer_bytes, coalescer.flight_count) == (0, 0)
        again = coalescer.join(BlockRef(version, 1, GEOMETRY), 0b1111)
        await asyncio.wait_for(again.flights[0].wait(3), 5)
        again.close()

    asyncio.run(main())
