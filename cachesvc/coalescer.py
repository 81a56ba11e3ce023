"""The coalescer: one flight per extent, whoever asks for it.

Story: a reader that misses asks for pages of a block (`join`). Pages that are already on their way
are joined; the rest are planned into extents, and each extent becomes a flight: one origin GET into
one buffer, hashed page by page, written to the store in runs of WRITE_BYTES, and served to everyone
who waits as it lands. A flight belongs to the coalescer, not to whoever came first: readers only
hold it. When the last holder leaves, it stops, unless all has landed and only the store is behind.

Rules
- Everything here runs on the event loop, except a Landing, which the origin's fill thread drives;
  it hops back by `hop`. State changes hold no await.
- Flights wait for their turn in one queue: at most `max_gets` fly at once, their buffers take at
  most MAX_BUFFER_BYTES, and at most MAX_WAITING_COUNT wait; beyond that, Overloaded at once. Those
  who wait for an origin that says nothing to anybody for SILENCE_S are refused (watch.py).
- A failed flight fails those who wait for what has not landed, and is forgotten: failures are never
  cached.
- A buffer is given back once all its pages are stored, so that a slow reader holds a descriptor and
  no memory; it is kept while somebody holds it if the store would not take the pages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial

import structlog

from cachesvc.buffers import BufferPool
from cachesvc.core.blocks import BlockRef
from cachesvc.core.errors import CacheError, InternalError, OriginError, Overloaded
from cachesvc.core.plan import Extent, plan
from cachesvc.flight import Flight, Hold
from cachesvc.landing import WRITE_BYTES, Hop, Landing
from cachesvc.metrics import Metrics
from cachesvc.origin.base import Origin
from cachesvc.store import Store
from cachesvc.watch import Watch

MAX_WAITING_COUNT = 4096
MAX_BUFFER_BYTES = 512 << 20
SILENCE_S = 15.0  # between what one attempt of the origin waits (9 s) and what two do

log = structlog.get_logger(__name__)


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
        self._watch = Watch(SILENCE_S, lambda: bool(self._waiting), self._refuse_silence)
        metrics.flights.set_function(lambda: self.flight_count)

    @property
    def flight_count(self) -> int:
        return self._flying_count + len(self._waiting)

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
        return Hold(self._leave, flights, set(began))

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
                    self._refuse_memory()
                break
            flight = self._waiting.popleft()
            if not self._flying_count:
                self._watch.progress()
            self._flying_count += 1
            self._buffer_bytes += need_bytes
            flight.charged_bytes = need_bytes
            self._take_off(flight)
        self._watch.begin()

    def _take_off(self, flight: Flight) -> None:
        landing = Landing(
            flight, self._store, self._pool, self._hop, self._write_bytes, self._watch.progress
        )
        flight.task = asyncio.get_running_loop().create_task(self._fly(flight, landing))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(partial(self._landed, flight, landing))

    async def _fly(self, flight: Flight, landing: Landing) -> None:
        extent = flight.extent
        try:
            await self._origin.fetch(extent.block.version, extent.object_range, landing)
        except CacheError as error:
            flight.error = error.with_traceback(None)
        except Exception as error:
            log.exception("a fill broke", block=str(extent.block))
            flight.error = InternalError(f"{extent.block}: the fill broke ({error!r}); see the log")

    def _landed(self, flight: Flight, landing: Landing, task: asyncio.Task[None]) -> None:
        """Also for a task that was cancelled before its first step."""
        self._tasks.discard(task)
        self._flying_count -= 1
        if not task.cancelled() and not isinstance(flight.error, OriginError):
            self._watch.progress()  # an origin that denies something speaks, too
        self._over(flight, landing.stored_pages)

    def _refuse_memory(self) -> None:
        """All room is held by readers of pages that could not be stored, who may wait for these
        very flights: nobody would ever make room. Refused, they leave, and with them what they
        hold.
        """
        self._refuse_waiting(Overloaded, "all memory for fills is in use; try another node")

    def _refuse_silence(self) -> None:
        self._refuse_waiting(
            OriginError,
            f"{len(self._waiting)} fills wait for the origin, and it has sent no byte to the"
            f" {self._flying_count} under way for {SILENCE_S:g} s: is it up?",
        )

    def _refuse_waiting(self, kind: type[CacheError], why: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for flight in waiting:
            flight.error = kind(f"{flight.extent.block}: {why}")
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
        self._watch.close()
        waiting, self._waiting = self._waiting, deque()
        for flight in waiting:
            self._over(flight, 0)
        flying = list(self._tasks)  # those that everybody has left and that have not ended, too
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
