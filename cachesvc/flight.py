"""A flight: a running fill of one extent, and the holds of those who wait for it.

Story: the coalescer begins a flight and is told of its progress; readers `wait` for the page that
they need next and take its bytes from the flight's memory, or from the store once the memory was
given back. A Hold is what keeps a flight going. A Probe is the first flight of an object of which
nothing is known: those who ask for the version hold it, and learn the version from its `head`.

Rules: everything here belongs to the event loop, but for `memory`, `buffer` and `peer`, which the
fill's thread sets before the first page lands, and `wanted_page`, at which it looks. Pages land in
order, so that two numbers say which are there: the first one, and how many have landed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from cachesvc.core.errors import CacheError
from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.plan import Extent
from cachesvc.core.types import ObjectName, ObjectVersion

_NEVER = 1 << 62  # a page that does not land: what is waited for is something else


class _Waiter(NamedTuple):
    """Who waits for pages up to `last`, and takes what is there of them from `first` on if told."""

    first: int
    last: int
    woken: asyncio.Future[bool]  # whether by `tell`


class Flight:
    """A running fill of one extent. `landed_pages` of its pages, from the first, are whole and
    hashed. wanted_page: the first one that somebody waits for. peer: some came from another cache.
    called_off: nobody waits for it any more, and it is to stop.
    """

    __slots__ = (
        "buffer", "called_off", "charged_bytes", "checksums", "done", "error", "extent", "holders",
        "keep", "landed_pages", "memory", "peer", "task", "waiters", "wanted_page",
    )  # fmt: skip

    def __init__(self, extent: Extent) -> None:
        self.extent = extent
        self.charged_bytes = 0
        self.memory: bytearray | None = None
        self.buffer: memoryview | None = None
        self.checksums = b""
        self.landed_pages = 0
        self.holders = 0
        self.keep = False
        self.called_off = False
        self.done = False
        self.peer = False
        self.error: CacheError | None = None
        self.task: asyncio.Task[None] | None = None
        self.wanted_page = _NEVER
        self.waiters: list[_Waiter] = []

    def covers(self, page: int) -> bool:
        return self.extent.first_page <= page < self.extent.beyond_page

    def landed(self, page: int) -> bool:
        return page < self.extent.first_page + self.landed_pages

    @property
    def all_landed(self) -> bool:
        return self.landed(self.extent.beyond_page - 1)

    @property
    def landed_end(self) -> int:
        """Where in the block the landed bytes end."""
        landed_bytes = self.landed_pages * self.extent.block.geometry.page_bytes
        return self.extent.start + min(landed_bytes, self.extent.length_bytes)

    async def wait(self, page: int, last_page: int | None = None, *, stored: bool = False) -> None:
        """Until the page has landed or the flight is over.

        last_page: until that has landed, too, or `tell` says how far it has come.
        stored: until it is over, when all that the store takes is stored.

        Raises: what the flight failed with, if the page will not come.
        """
        first, last = page, page if last_page is None else last_page
        if stored:
            first = last = _NEVER
        told = False
        while not (self.done or told or self.landed(last)):
            told = await self._change(first, last)
        if self.error is not None and not self.landed(page):
            raise type(self.error)(self.error.message)

    async def _change(self, first: int, last: int) -> bool:
        """Until a wake that is meant for who waits for these pages; whether it was by `tell`."""
        woken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiters.append(_Waiter(first, last, woken))
        self.wanted_page = min(self.wanted_page, last)
        return await woken

    def bytes_of(self, start: int, end: int) -> memoryview | None:
        """`[start, end)` of the block, read-only; None once the buffer was given back."""
        if self.buffer is None:
            return None
        return self.buffer[start - self.extent.start : end - self.extent.start].toreadonly()

    def checksums_of(self, first_page: int, beyond_page: int) -> bytes:
        first = (first_page - self.extent.first_page) * CHECKSUM_BYTES
        return self.checksums[first : first + (beyond_page - first_page) * CHECKSUM_BYTES]

    def wake(self) -> None:
        """All who wait look again."""
        self._wake(lambda _: True)

    def wake_served(self) -> None:
        """Those go on whose last page has landed."""
        self._wake(lambda one: self.landed(one.last))

    def tell(self) -> None:
        """Those go on whose first page has landed."""
        self._wake(lambda one: self.landed(one.first), told=True)

    def _wake(self, meant: Callable[[_Waiter], bool], *, told: bool = False) -> None:
        waiters, self.waiters = self.waiters, []
        for one in waiters:
            if not meant(one):
                self.waiters.append(one)
            elif not one.woken.done():
                one.woken.set_result(told)
        self.wanted_page = min((one.last for one in self.waiters), default=_NEVER)


class Probe(Flight):
    """A flight to an object whose version is not known: until its head has come, its extent is of
    a stand-in (plan.first_extent).

    max_age_s: how old its answer may be. sent_at: on `clock`; inf while it waits for its turn.
    """

    __slots__ = ("_clock", "max_age_s", "sent_at", "version")

    def __init__(self, extent: Extent, clock: Callable[[], float], max_age_s: float = 0.0) -> None:
        super().__init__(extent)
        self.max_age_s = max_age_s
        self._clock = clock
        self.sent_at = float("inf")
        self.version: ObjectVersion | None = None

    @property
    def name(self) -> ObjectName:
        return self.extent.block.version.name

    def send(self) -> None:
        """It takes off now."""
        self.sent_at = self._clock()

    def found(self, version: ObjectVersion) -> None:
        """The head has come: from now on it is a flight as any other."""
        self.version = version
        self.extent = self.extent.within(version)

    async def head(self) -> ObjectVersion | None:
        """The version, once the head has come. None: it does not prove one, or all who held the
        probe have left.

        Raises: what the probe failed with before.
        """
        while self.version is None and self.holders and not self.done:
            await self._change(_NEVER, _NEVER)
        if self.version is None and self.error is not None:
            raise type(self.error)(self.error.message)
        return self.version


class Hold:
    """A reader's interest in some pages of one block. `began` are the flights that it started
    itself.
    """

    __slots__ = ("_leave", "began", "flights")

    def __init__(
        self, leave: Callable[[Flight, bool], None], flights: list[Flight], began: set[Flight]
    ) -> None:
        self._leave = leave
        self.flights = flights
        self.began = began

    def covering(self, page: int) -> Flight | None:
        return next((flight for flight in self.flights if flight.covers(page)), None)

    def close(self, *, served: bool = False) -> None:
        """Lose interest. Closing twice is fine. served: the pages have come, and what else was
        asked for with them lands all the same, for whoever reads on.
        """
        flights, self.flights = self.flights, []
        for flight in flights:
            self._leave(flight, served)
