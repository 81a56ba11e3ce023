"""The connections of the simulated cluster: what was sent is received in order, if at all."""

from __future__ import annotations

import asyncio
from collections import deque

Item = tuple[bytes, int] | bytes  # a header and how many body bytes follow it; or body bytes
MOST_ITEMS = 4  # how much the wire holds


class Channel:
    """One connection with one request on it. What was sent is received in order, if at all."""

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.hung_up = False
        self.patient = False  # the node works for it: pending frames come
        self.task: asyncio.Task[None] | None = None
        self._changed: asyncio.Future[None] | None = None

    async def send(self, item: Item) -> None:
        """Until the wire has taken it. Raises ConnectionError if the other end is gone."""
        while len(self.items) >= MOST_ITEMS and not self.hung_up:
            await self._change()
        if self.hung_up:
            raise ConnectionError("the client hung up")
        self.items.append(item)
        self._wake()

    async def ready(self) -> None:
        """Until there is an item. Raises ConnectionError if none will come."""
        while not self.items:
            if self.hung_up:
                raise ConnectionError("the node hung up")
            await self._change()

    def take(self) -> Item:
        """The next item, which is there."""
        item = self.items.popleft()
        self._wake()
        return item

    def hang_up(self) -> None:
        self.hung_up = True
        self._wake()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)
