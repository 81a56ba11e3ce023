"""What the tests of probes share: a small object, the two ways to ask for it, and an origin that
can be held back.
"""

from __future__ import annotations

import asyncio

from cachesvc.core.errors import CacheError
from cachesvc.core.types import ByteRange
from cachesvc.origin.memory import Asked, Fault
from tests.support import NAME, Rig, pattern

PROBE = Asked("get", NAME, "", ByteRange(0, 1024))
HEAD = Asked("head", NAME)
SMALL = pattern(300)


class Gate:
    """Holds the origin's answers back, by the kind of question, until it is opened."""

    def __init__(self, rig: Rig, *ops: str) -> None:
        self.opened = asyncio.Event()
        self.error: CacheError | None = None
        self._ops = ops
        rig.origin.before = lambda op, name, wanted: self._wait(op)

    async def _wait(self, op: str) -> Fault | None:
        if op in self._ops:
            await self.opened.wait()
            if self.error is not None:
                raise self.error
        return None
