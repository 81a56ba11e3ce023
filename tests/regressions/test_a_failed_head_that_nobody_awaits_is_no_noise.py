"""A HEAD whose askers were all cancelled may fail without asyncio complaining in the log.

Story: a caller that finds a HEAD too early for it waits for that one to end before it sends its
own. If everybody leaves meanwhile and the HEAD fails, nobody had looked at its exception, and the
node logged "Task exception was never retrieved" with a traceback.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from cachesvc.core.errors import OriginError
from cachesvc.core.types import ByteRange, ObjectName
from cachesvc.origin.memory import MemoryOrigin
from cachesvc.versions import Versions

NAME = ObjectName("bucket", "key")


def test_a_failed_head_that_nobody_awaits_is_no_noise() -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        fail = loop.create_future()
        now = iter(range(100))

        async def before(op: str, name: ObjectName, wanted: ByteRange | None) -> None:
            await fail
            raise OriginError("503")

        versions = Versions(MemoryOrigin(before=before), 0.0, lambda: float(next(now)))
        leader = asyncio.create_task(versions.get(NAME))
        await asyncio.sleep(0)
        follower = asyncio.create_task(versions.get(NAME))
        await asyncio.sleep(0)
        leader.cancel()
        follower.cancel()
        await asyncio.gather(leader, follower, return_exceptions=True)
        fail.set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    assert complaints == []
