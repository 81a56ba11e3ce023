"""Joining what is missing of a block, without the event loop waiting for a disk."""

from __future__ import annotations

from functools import partial

from cachesvc.aside import Aside
from cachesvc.coalescer import Coalescer
from cachesvc.core.blocks import BlockRef
from cachesvc.flight import Hold
from cachesvc.store import Store


class Joiner:
    """Holds on the flights that bring missing pages. A file that is not open is opened aside."""

    def __init__(self, store: Store, coalescer: Coalescer, aside: Aside) -> None:
        self._store = store
        self._coalescer = coalescer
        self._aside = aside

    async def join(
        self, block: BlockRef, pages: int, *, keep: bool = False, probed: Hold | None = None
    ) -> Hold:
        """See Coalescer.join. What a probe brings is waited for, and what a flight that everybody
        left has brought: that may be these pages.

        Raises:
            Overloaded: too many flights wait already.
        """
        pin = None
        if self._store.at_hand(block) is None:
            pin = await self._aside(partial(self._store.hold, block))
        try:
            while block.index == 0 and (probe := self._coalescer.probing(block.version.name)):
                await probe.head()
            missing = pages & ~(self._store.at_hand(block) or 0)
            await self._coalescer.settled(block, missing)
            return self._coalescer.join(block, pages, keep=keep, probed=probed)
        finally:
            if pin is not None:
                pin.close()

    def stored(self, block: BlockRef) -> bool:
        """Whether the block is whole in the store, as far as that can be said without waiting."""
        return (self._store.at_hand(block) or 0) == block.all_pages

    def has_room(self, count: int) -> bool:
        """Whether so many more flights would leave some for others (Coalescer.spare_count)."""
        return self._coalescer.spare_count > count
