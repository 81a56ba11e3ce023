"""The coalescer: one flight per extent, whoever asks for it.

Story: a reader that misses asks for pages of a block (`join`). Pages that are already on their way
are joined; the rest are planned into extents, and each extent becomes a flight: one origin GET into
one buffer, hashed page by page, written to the store in runs of WRITE_BYTES, and served to everyone
who waits as it lands. A flight belongs to the coalescer, not to whoever came first: readers only
hold it. When the last holder leaves, it stops, unless all has landed and only the store is behind.

Rules
- Everything here runs on the event loop, except `_Landing`, which the origin's fill thread drives;
  it hops back by `hop`. State changes hold no await.
- Flights wait for their turn in one queue: at most `max_gets` fly at once, their buffers take at
  most MAX_BUFFER_BYTES, and at most MAX_WAITING_COUNT wait; beyond that, Overloaded at once.
- A failed flight fails those who wait for what has not landed, and is forgotten: failures are never
  cached.
- A buffer is given back once all its pages are stored, so that a slow reader holds a descriptor and
  no memory; it is kept while somebody holds it if the store would not take the pages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from cachesvc.buffers import BufferPool
from cachesvc.core.blocks import BlockRef
from cachesvc.core.errors import CacheError, InternalError, Overloaded
from cachesvc.core.format import CHECKSUM_BYTES, checksum
from cachesvc.core.plan import Extent, plan
from cachesvc.metrics import Metrics
from cachesvc.origin.base import Origin
from cachesvc.store import Store

MAX_WAITING_COUNT = 4096
MAX_BUFFER_BYTES = 512 << 20
WRITE_BYTES = (
    2 << 20
)  # how a block file is written decides how fast it maps: in runs of this, aligned

log = structlog.get_logger(__name__)
Hop = Callable[..., Any]


class Flight:
    """A running fill of one extent. `landed_pages` of its pages, from the first, are whole and
    hashed.
    """

    __slots__ = (
        "buffer", "charged_bytes", "checksums", "done", "error", "extent", "holders", "keep",
        "landed_pages", "memory", "task", "waiters",
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
        self.done = False
        self.error: CacheError | None = None
        self.task: asyncio.Task[None] | None = None
        self.waiters: list[asyncio.Future[None]] = []

    def covers(self, page: int) -> bool:
        return self.extent.first_page <= page < self.extent.beyond_page

    def landed(self, page: int) -> bool:
        return page < self.extent.first_page + self.landed_pages

    @property
    def landed_end(self) -> int:
        """Where in the block the landed bytes end."""
        landed_bytes = self.landed_pages * self.extent.block.geometry.page_bytes
        return self.extent.start + min(landed_bytes, self.extent.length_bytes)

    async def wait(self, page: int, *, stored: bool = False) -> None:
        """Until the page has landed or the flight is over.

        stored: until it is over, when all that the store takes is stored.

        Raises: what the flight failed with, if the page will not come.
        """
        while not self.done and (stored or not self.landed(page)):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            await waiter
        if self.error is not None and not self.landed(page):
            raise type(self.error)(self.error.message)

    def bytes_of(self, start: int, end: int) -> memoryview | None:
        """`[start, end)` of the block, read-only; None once the buffer was given back."""
        if self.buffer is None:
            return None
        return self.buffer[start - self.extent.start : end - self.extent.start].toreadonly()

    def checksums_of(self, first_page: int, beyond_page: int) -> bytes:
        first = (first_page - self.extent.first_page) * CHECKSUM_BYTES
        return self.checksums[first : first + (beyond_page - first_page) * CHECKSUM_BYTES]

    def wake(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Hold:
    """A reader's interest in some pages of one block. `began` are the flights that it started
    itself.
    """

    __slots__ = ("_coalescer", "began", "flights")

    def __init__(self, coalescer: Coalescer, flights: list[Flight], began: set[Flight]) -> None:
        self._coalescer = coalescer
        self.flights = flights
        self.began = began

    def covering(self, page: int) -> Flight | None:
        return next((flight for flight in self.flights if flight.covers(page)), None)

    def close(self) -> None:
        """Lose interest. Closing twice is fine."""
        flights, self.flights = self.flights, []
        for flight in flights:
            self._coalescer._leave(flight)


class Coalescer:
    """All flights of one node. `hop(callback, *args)` runs a callback on the event loop, from any
    thread.
    """

    def __init__(
        self,
        origin: Origin,
        store: Store,
        metrics: Metrics,
        hop: Hop,
        *,
        max_gets: int = 32,
        max_waiting_count: int = MAX_WAITING_COUNT,
        max_buffer_bytes: int = MAX_BUFFER_BYTES,
        write_bytes: int = WRITE_BYTES,
    ) -> None:
        assert write_bytes > 0, f"write_bytes is {write_bytes}"
        self._origin = origin
        self._store = store
        self._metrics = metrics
        self._hop = hop
        self._max_gets = max_gets
        self._max_waiting_count = max_waiting_count
        self._max_buffer_bytes = max_buffer_bytes
        self._write_bytes = write_bytes
        self._by_block: dict[bytes, list[Flight]] = {}
        self._waiting: deque[Flight] = deque()
        self._pool = BufferPool()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flying_count = 0
        self._buffer_bytes = 0
        metrics.flights.set_function(lambda: self.flight_count)

    @property
    def flight_count(self) -> int:
        return self._flying_count + len(self._waiting)

    @property
    def spare_count(self) -> int:
        """How many more may begin ahead of any reader: an eighth of all is left to readers."""
        return self._max_gets - max(1, self._max_gets // 8) - self.flight_count

    @property
    def buffer_bytes(self) -> int:
        return self._buffer_bytes

    def join(self, block: BlockRef, wanted: int, *, keep: bool = False) -> Hold:
        """Bring the wanted pages that are not present: a hold on the flights that do.

        Asks no disk: a page counts as present if its file is open, so pin the block before.

        keep: hold on to the buffers even when they are stored, for a reader that found its pages
        evicted again.

        Raises:
            Overloaded: too many flights wait already.
        """
        present = self._store.at_hand(block) or 0
        current = self._by_block.get(block.id, [])
        joined = [flight for flight in current if flight.extent.pages & wanted & ~present]
        in_flight = 0
        for flight in current:
            in_flight |= flight.extent.pages
        extents = plan(block, wanted, present | in_flight)
        if extents and len(self._waiting) + len(extents) > self._max_waiting_count:
            raise Overloaded(
                f"{block.version.name}: {len(self._waiting)} fills are waiting already; "
                "try another node"
            )
        began = [self._begin(extent) for extent in extents]
        flights = joined + began
        for flight in flights:
            flight.holders += 1
            flight.keep |= keep
        self._admit()
        return Hold(self, flights, set(began))

    def _begin(self, extent: Extent) -> Flight:
        flight = Flight(extent)
        self._by_block.setdefault(extent.block.id, []).append(flight)
        self._waiting.append(flight)
        return flight

    def _admit(self) -> None:
        """Let waiting flights fly while there is room for them."""
        while self._waiting and self._flying_count < self._max_gets:
            need_bytes = self._waiting[0].extent.length_bytes
            held_bytes = self._buffer_bytes + self._pool.lingering_bytes()
            if held_bytes and held_bytes + need_bytes > self._max_buffer_bytes:
                if not self._flying_count:
                    self._refuse_waiting()
                return
            flight = self._waiting.popleft()
            self._flying_count += 1
            self._buffer_bytes += need_bytes
            flight.charged_bytes = need_bytes
            landing = _Landing(flight, self._store, self._pool, self._hop, self._write_bytes)
            flight.task = asyncio.get_running_loop().create_task(self._fly(flight, landing))
            self._tasks.add(flight.task)
            flight.task.add_done_callback(partial(self._landed, flight, landing))

    async def _fly(self, flight: Flight, landing: _Landing) -> None:
        extent = flight.extent
        try:
            await self._origin.fetch(extent.block.version, extent.object_range, landing)
        except CacheError as error:
            flight.error = error.with_traceback(None)
        except Exception as error:
            log.exception("a fill broke", block=str(extent.block))
            flight.error = InternalError(f"{extent.block}: the fill broke ({error!r}); see the log")

    def _landed(self, flight: Flight, landing: _Landing, task: asyncio.Task[None]) -> None:
        """Also for a task that was cancelled before its first step."""
        self._tasks.discard(task)
        self._flying_count -= 1
        self._over(flight, landing.stored_pages)

    def _refuse_waiting(self) -> None:
        """All room is held by readers of pages that could not be stored, who may wait for these
        very flights: nobody would ever make room. Refused, they leave, and with them what they
        hold.
        """
        while self._waiting:
            flight = self._waiting.popleft()
            flight.error = Overloaded(
                f"{flight.extent.block}: all memory for fills is in use; try another node"
            )
            self._finish(flight, 0)

    def _over(self, flight: Flight, stored_pages: int) -> None:
        self._finish(flight, stored_pages)
        self._admit()

    def _finish(self, flight: Flight, stored_pages: int) -> None:
        if flight.error is None and not flight.landed(flight.extent.beyond_page - 1):
            flight.error = Overloaded(f"{flight.extent.block}: the fill was called off; try again")
        flight.done = True
        self._unlist(flight)
        if not flight.holders or (stored_pages == flight.landed_pages and not flight.keep):
            self._give_back(flight)
        flight.wake()

    def _leave(self, flight: Flight) -> None:
        flight.holders -= 1
        if flight.holders:
            return
        if flight.done:
            self._give_back(flight)
            self._admit()
        elif flight.task is None:
            self._waiting.remove(flight)
            self._over(flight, 0)
        elif not flight.landed(flight.extent.beyond_page - 1):
            self._unlist(flight)
            flight.task.cancel()

    def _unlist(self, flight: Flight) -> None:
        """New readers no longer find it."""
        block_id = flight.extent.block.id
        current = self._by_block.get(block_id, [])
        if flight in current:
            current.remove(flight)
        if not current:
            self._by_block.pop(block_id, None)

    def _give_back(self, flight: Flight) -> None:
        self._buffer_bytes -= flight.charged_bytes
        flight.charged_bytes = 0
        memory, flight.memory, flight.buffer = flight.memory, None, None
        if memory is not None:
            self._pool.give(memory)

    async def close(self) -> None:
        """Stop all flights; those who wait get Overloaded."""
        waiting, self._waiting = self._waiting, deque()
        for flight in waiting:
            self._over(flight, 0)
        flying = list(self._tasks)  # those that everybody has left and that have not ended, too
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)


class _Landing:
    """The sink of one flight (origin.base.Sink): hashes pages as they land, stores them in runs,
    tells the loop.

    The buffer is taken by whoever lands the first byte, because new memory is slow to come by, and
    the loop must not wait for it. Progress is told in steps that grow, so that the first bytes
    are quick and a crowd of readers is not woken for every page.
    """

    def __init__(
        self, flight: Flight, store: Store, pool: BufferPool, hop: Hop, write_bytes: int
    ) -> None:
        self._flight = flight
        self._extent = flight.extent
        self._size_bytes = flight.extent.length_bytes
        self._store = store
        self._pool = pool
        self._hop = hop
        self._write_bytes = write_bytes
        self._checksums = bytearray()
        self._hashed_bytes = 0
        self._told_bytes = 0
        self._written_bytes = 0
        self.stored_pages = 0

    @property
    def view(self) -> memoryview:
        flight = self._flight
        if flight.buffer is None:
            assert not flight.done, "landing on a flight that is over"
            assert not self._hashed_bytes, "the buffer is gone, and the fill goes on"
            flight.memory, flight.buffer = self._pool.take(self._size_bytes)
        return flight.buffer

    @property
    def cancelled(self) -> bool:
        return self._flight.holders == 0 and self._hashed_bytes < self._size_bytes

    def landed(self, count_bytes: int) -> None:
        self._hash(count_bytes)
        untold_bytes = self._hashed_bytes - self._told_bytes
        if self._hashed_bytes == self._size_bytes or untold_bytes > self._told_bytes // 4:
            self._told_bytes = self._hashed_bytes
            self._hop(self._progress, bytes(self._checksums))
        total_bytes = self._size_bytes
        while self._written_bytes < self._hashed_bytes:
            border = (self._extent.start + self._written_bytes) // self._write_bytes + 1
            end = min(total_bytes, border * self._write_bytes - self._extent.start)
            if end > self._hashed_bytes:
                break
            self._write(end)

    def _hash(self, count_bytes: int) -> None:
        page_bytes, view = self._extent.block.geometry.page_bytes, self.view
        while self._hashed_bytes < count_bytes:
            end = min(self._hashed_bytes + page_bytes, self._size_bytes)
            if end > count_bytes:
                return
            self._checksums += checksum(view[self._hashed_bytes : end])
            self._hashed_bytes = end

    def _write(self, end: int) -> None:
        page_bytes = self._extent.block.geometry.page_bytes
        first = self._written_bytes // page_bytes
        beyond = -(-end // page_bytes)
        sums = bytes(self._checksums[first * CHECKSUM_BYTES : beyond * CHECKSUM_BYTES])
        data = self.view[self._written_bytes : end]
        self._written_bytes = end
        if self._store.write(self._extent.block, self._extent.first_page + first, data, sums):
            self.stored_pages += beyond - first

    def _progress(self, checksums: bytes) -> None:
        flight = self._flight
        if len(checksums) <= len(flight.checksums):
            return
        flight.checksums = checksums
        flight.landed_pages = len(flight.checksums) // CHECKSUM_BYTES
        flight.wake()
