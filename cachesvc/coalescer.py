"""The coalescer: one flight per extent, whoever asks for it.

Story: a reader that misses asks for pages of a block (`join`). Pages that are already on their way
are joined; the rest are planned into extents, and each extent becomes a flight: one origin GET into
one buffer, hashed page by page, written to the store in runs of WRITE_BYTES, and served to everyone
who waits as it lands. A flight belongs to the coalescer, not to whoever came first: readers only
hold it. When the last holder leaves, it stops, unless it has served that one, or all has landed and
only the store is behind; what has landed of it is stored, and who comes meanwhile waits for that
(`settled`).
Of an object that nobody knows, `probe` begins a flight without a version; when its head has come,
the flight stands among the others, where readers of that version find it.

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
from collections import Counter, deque
from functools import partial

import structlog

from cachesvc.buffers import BufferPool, room_bytes
from cachesvc.core.blocks import BlockRef
from cachesvc.core.errors import CacheError, InternalError, OriginError, Overloaded
from cachesvc.core.plan import plan
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.flight import Flight, Hold, Probe
from cachesvc.landing import WRITE_BYTES, Hop, Landing, ProbeLanding
from cachesvc.metrics import Metrics
from cachesvc.origin.base import Origin
from cachesvc.store import Store
from cachesvc.watch import Watch

MAX_WAITING_COUNT = 4096
MAX_BUFFER_BYTES = 64 * room_bytes(8 << 20)
SETTLE_S = 0.25  # the longest that a reader waits for what others left half landed
TELL_S = 0.05  # the longest that readers do not hear of what has landed
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
        max_gets: int = 64,
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
        self._firsts: Counter[ObjectName] = Counter()  # flights of a block 0
        self._probes: dict[ObjectName, Probe] = {}  # whose heads have not come
        self._waiting: deque[Flight] = deque()
        self._pool = BufferPool()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flying: dict[Flight, Landing] = {}
        self._teller: asyncio.TimerHandle | None = None
        self._buffer_bytes = 0
        self._watch = Watch(SILENCE_S, lambda: bool(self._waiting), self._refuse_silence)
        metrics.flights.set_function(lambda: self.flight_count)

    @property
    def flight_count(self) -> int:
        return len(self._flying) + len(self._waiting)

    @property
    def spare_count(self) -> int:
        """How many more may begin ahead of any reader: an eighth of all is left to readers."""
        return self._max_gets - max(1, self._max_gets // 8) - self.flight_count

    @property
    def buffer_bytes(self) -> int:
        return self._buffer_bytes

    def join(
        self, block: BlockRef, wanted: int, *, keep: bool = False, probed: Hold | None = None
    ) -> Hold:
        """Bring the wanted pages that are not present: a hold on the flights that do.

        Asks no disk: a page counts as present if its file is open, so pin the block before.

        keep: hold on to the buffers even when they are stored, for a reader that found its pages
        evicted again. probed: the reader's hold on a probe, which may have brought some of them.

        Raises:
            Overloaded: too many flights wait already.
        """
        present = self._store.at_hand(block) or 0
        brought = [one for one in probed.flights if one.extent.block == block] if probed else []
        others = [one for one in self._by_block.get(block.id, []) if one not in brought]
        joined = [one for one in brought if one.extent.pages & wanted]
        joined += [one for one in others if one.extent.pages & wanted & ~present]
        in_flight = 0
        for flight in brought + others:
            in_flight |= flight.extent.pages
        extents = plan(block, wanted, present | in_flight)
        self._refuse_crowd(block.version.name, len(extents))
        began = [Flight(extent) for extent in extents]
        for flight in began:
            self._list(flight)
        self._waiting.extend(began)
        flights = joined + began
        for flight in flights:
            flight.holders += 1
            flight.keep |= keep
        self._admit()
        own = {flight for flight in brought if probed and flight in probed.began}
        return Hold(self._leave, flights, own.union(began))

    def probe(self, probe: Probe) -> Hold:
        """Begin a probe of an object that is `unknown`: a hold on it.

        Raises:
            Overloaded: too many flights wait already.
        """
        self._refuse_crowd(probe.name, 1)
        self._probes[probe.name] = probe
        self._waiting.append(probe)
        probe.holders = 1
        self._admit()
        return Hold(self._leave, [probe], {probe})

    def probing(self, name: ObjectName) -> Probe | None:
        """The probe of the object whose head has not come."""
        return self._probes.get(name)

    def share(self, probe: Probe) -> Hold:
        """One more hold on a probe that is under way."""
        probe.holders += 1
        return Hold(self._leave, [probe], set())

    def unknown(self, name: ObjectName) -> bool:
        """Whether no probe and no flight of a block 0 of the object is under way."""
        return name not in self._probes and name not in self._firsts

    async def settled(self, block: BlockRef, pages: int) -> None:
        """Until flights that everybody left have stored what had landed of these pages, a bitmap,
        so that it is not fetched again; SETTLE_S at most.
        """
        stopping = [
            flight.task
            for flight, landing in self._flying.items()
            if flight.called_off and flight.task and landing.begun
            if flight.extent.block == block and flight.extent.pages & pages
        ]
        if stopping:
            await asyncio.wait(stopping, timeout=SETTLE_S)

    def _refuse_crowd(self, name: ObjectName, more_count: int) -> None:
        if more_count and len(self._waiting) + more_count > self._max_waiting_count:
            raise Overloaded(
                f"{name}: {len(self._waiting)} fills are waiting already; try another node"
            )

    def _list(self, flight: Flight) -> None:
        """From now on readers find it."""
        block = flight.extent.block
        self._by_block.setdefault(block.id, []).append(flight)
        if block.index == 0:
            self._firsts[block.version.name] += 1

    def _admit(self) -> None:
        """Let waiting flights fly while there is room for them."""
        while self._waiting and len(self._flying) < self._max_gets:
            need_bytes = room_bytes(self._waiting[0].extent.length_bytes)
            held_bytes = self._buffer_bytes + self._pool.lingering_bytes()
            if held_bytes and held_bytes + need_bytes > self._max_buffer_bytes:
                if not self._flying:
                    self._refuse_memory()
                break
            flight = self._waiting.popleft()
            if not self._flying:
                self._watch.progress()
            self._buffer_bytes += need_bytes
            flight.charged_bytes = need_bytes
            self._take_off(flight)
        self._watch.begin()

    def _take_off(self, flight: Flight) -> None:
        site = self._store, self._pool, self._hop, self._write_bytes, self._watch.progress
        if isinstance(flight, Probe):
            flight.send()
            landing: Landing = ProbeLanding(flight, *site, found_by=self._found)
        else:
            landing = Landing(flight, *site)
        flight.task = asyncio.get_running_loop().create_task(self._fly(flight, landing))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(partial(self._ended, flight, landing))
        self._flying[flight] = landing
        self._tell_later()

    def _tell_later(self) -> None:
        if self._flying and self._teller is None:
            self._teller = asyncio.get_running_loop().call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        """Origins that are slow, or stand still, leave steps half done."""
        self._teller = None
        for landing in self._flying.values():
            landing.tell()
        self._tell_later()

    async def _fly(self, flight: Flight, landing: Landing) -> None:
        extent = flight.extent
        try:
            if isinstance(flight, Probe) and isinstance(landing, ProbeLanding):
                where = flight.name, extent.object_range
                await self._origin.probe(*where, landing, flight.max_age_s)
            else:
                await self._origin.fetch(extent.block.version, extent.object_range, landing)
        except CacheError as error:
            flight.error = error.with_traceback(None)
        except Exception as error:
            log.exception("a fill broke", block=str(extent.block))
            flight.error = InternalError(
                f"{extent.block}: a defect ({type(error).__name__}); the node's log has more"
            )

    def _found(self, probe: Probe, version: ObjectVersion) -> None:
        """The head of a probe has come: it takes its place among the flights, and only the room
        that it needs.
        """
        self._watch.progress()
        if probe.done or not probe.holders:
            return
        self._unlist(probe)
        probe.found(version)
        spare_bytes = probe.charged_bytes - room_bytes(probe.extent.length_bytes)
        probe.charged_bytes -= spare_bytes
        self._buffer_bytes -= spare_bytes
        self._list(probe)
        probe.wake()
        self._admit()

    def _ended(self, flight: Flight, landing: Landing, task: asyncio.Task[None]) -> None:
        """Also for a task that was cancelled before its first step."""
        self._tasks.discard(task)
        del self._flying[flight]
        landing.tell()
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
            f" {len(self._flying)} under way for {SILENCE_S:g} s: is it up?",
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
        if flight.error is None and not _unproven(flight) and not flight.all_landed:
            flight.error = Overloaded(f"{flight.extent.block}: the fill was called off; try again")
        flight.done = True
        self._unlist(flight)
        if not flight.holders or (stored_pages == flight.landed_pages and not flight.keep):
            self._give_back(flight)
        flight.wake()

    def _leave(self, flight: Flight, served: bool) -> None:
        flight.holders -= 1
        if flight.holders:
            return
        if flight.done:
            self._give_back(flight)
            self._admit()
        elif flight.task is None:
            self._waiting.remove(flight)
            self._over(flight, 0)
        elif not (served or flight.all_landed):
            self._unlist(flight)
            flight.called_off = True
            flight.task.cancel()
            flight.wake()

    def _unlist(self, flight: Flight) -> None:
        """New readers no longer find it."""
        block = flight.extent.block
        if self._probes.get(block.version.name) is flight:
            del self._probes[block.version.name]
        current = self._by_block.get(block.id, [])
        if flight not in current:
            return
        current.remove(flight)
        if not current:
            del self._by_block[block.id]
        if block.index == 0:
            self._firsts[block.version.name] -= 1
            if not self._firsts[block.version.name]:
                del self._firsts[block.version.name]

    def _give_back(self, flight: Flight) -> None:
        self._buffer_bytes -= flight.charged_bytes
        flight.charged_bytes = 0
        memory, flight.memory, flight.buffer = flight.memory, None, None
        if memory is not None:
            self._pool.give(memory)

    async def close(self) -> None:
        """Stop all flights; those who wait get Overloaded."""
        self._watch.close()
        if self._teller is not None:
            self._teller.cancel()
        waiting, self._waiting = self._waiting, deque()
        for flight in waiting:
            self._over(flight, 0)
        flying = list(self._tasks)  # those that everybody has left and that have not ended, too
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)


def _unproven(flight: Flight) -> bool:
    """Whether it is a probe that has found no version."""
    return isinstance(flight, Probe) and flight.version is None
