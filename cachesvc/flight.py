"""A flight: a running fill of one extent, and the holds of those who wait for it.

Story: the coalescer begins a flight and is told of its progress; readers `wait` for the page that
they need next and take its bytes from the flight's memory, or from the store once the memory was
given back. A Hold is what keeps a flight going. A Probe is the first flight of an object of which
nothing is known: those who ask for the version hold it, and learn the version from its `head`.

Rules: everything here belongs to the event loop. Pages land in order, so that two numbers say which
are there: the first one, and how many have landed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cachesvc.core.errors import CacheError
from cachesvc.core.format import CHECKSUM_BYTES
from cachesvc.core.plan import Extent
from cachesvc.core.types import ObjectName, ObjectVersion

_NEVER = 1 << 62  # a page that does not land: what is waited for is something else
Waiters = list[tuple[int, asyncio.Future[None]]]  # the last page that each waits for


class Flight:
    """A running fill of one extent. `landed_pages` of its pages, from the first, are whole and
    hashed. wanted_page: the first one that somebody waits for; any thread may look. tellings: how
    often those who wait were told of all that had landed, whether it was what they wait for or not.
    peer: some came from another cache. called_off: nobody waits for it any more, and it is to stop.
    """

    __slots__ = (
        "buffer", "called_off", "charged_bytes", "checksums", "done", "error", "extent", "holders",
        "keep", "landed_pages", "memory", "peer", "task", "tellings", "waiters", "wanted_page",
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
        self.tellings = 0
        self.wanted_page = _NEVER
        self.waiters: Waiters = []

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

        last_page: until that has landed, too, or everybody is told of what has.
        stored: until it is over, when all that the store takes is stored.

        Raises: what the flight failed with, if the page will not come.
        """
        wanted = _NEVER if stored else page if last_page is None else last_page
        tellings = self.tellings
        while not self.done and not self.landed(wanted):
            if self.landed(page) and self.tellings != tellings and not stored:
                break
            await self._change(wanted)
        if self.error is not None and not self.landed(page):
            raise type(self.error)(self.error.message)

    async def _change(self, wanted_page: int) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters.append((wanted_page, waiter))
        self.wanted_page = min(self.wanted_page, wanted_page)
        await waiter

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
        self._wake(self.waiters, [])

    def wake_served(self) -> None:
        """Those look again whose page has landed."""
        served = [one for one in self.waiters if self.landed(one[0])]
        self._wake(served, [one for one in self.waiters if not self.landed(one[0])])

    def _wake(self, woken: Waiters, others: Waiters) -> None:
        self.waiters = others
        self.wanted_page = min((page for page, _ in others), default=_NEVER)
        for _, waiter in woken:
            if not waiter.done():
                waiter.set_result(None)


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
            await self._change(_NEVER)
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
