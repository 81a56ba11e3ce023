"""A landing: where the bytes of one flight come down, page by page (origin.base.Sink).

Rules
- One thread at a time drives it, the origin's fill thread, which need not be the loop's; it hops to
  the event loop by `hop` to tell the flight of its progress.
- A page counts once it is whole and hashed, and its parts (core/parts.py) are, while the processor
  has it in its cache.
- Pages are stored in aligned runs of `write_bytes`, a whole block mostly: room, trailer and index
  cost as much for one page as for all. What has landed of a fill that breaks off is stored then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cachesvc.buffers import BufferPool
from cachesvc.core import parts
from cachesvc.core.format import CHECKSUM_BYTES, checksum
from cachesvc.core.types import ObjectVersion
from cachesvc.flight import Flight, Probe
from cachesvc.store import Store

WRITE_BYTES = 8 << 20  # of a run of pages
STEP_BYTES = 2 << 20  # the flight is told of, whether somebody waits or not

Hop = Callable[..., Any]


class Landing:
    """The sink of one flight (origin.base.Sink): hashes pages as they land, stores them in runs,
    tells the loop.

    progressed: called on the loop whenever pages have landed.

    The buffer is taken by whoever lands the first byte, because new memory is slow to come by, and
    the loop must not wait for it. Progress is told when a page has landed that somebody waits for,
    or it has grown by STEP_BYTES. What that leaves out is told by the coalescer, now and then
    (`tell`).
    """

    def __init__(
        self,
        flight: Flight,
        store: Store,
        pool: BufferPool,
        hop: Hop,
        write_bytes: int,
        progressed: Callable[[], None],
    ) -> None:
        self._flight = flight
        self._extent = flight.extent
        self._size_bytes = flight.extent.length_bytes
        self._store = store
        self._pool = pool
        self._hop = hop
        self._write_bytes = write_bytes
        self._progressed = progressed
        self._checksums = bytearray()
        self._part_bytes = parts.part_bytes_of(self._extent.block.geometry.page_bytes)
        self._part_sums = bytearray()
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
        return self._flight.called_off and self._hashed_bytes < self._size_bytes

    @property
    def begun(self) -> bool:
        """Whether pages have landed. From any thread."""
        return self._hashed_bytes > 0

    def from_peer(self) -> None:
        """See `Sink.from_peer`. Said before anything lands, so that the loop learns it first."""
        self._flight.peer = True

    def landed(self, count_bytes: int) -> None:
        self._hash(count_bytes)
        if self._hashed_bytes == self._size_bytes or self._worth_telling():
            self._told_bytes = self._hashed_bytes
            self._hop(self._progress, bytes(self._checksums))
        total_bytes = self._size_bytes
        while self._written_bytes < self._hashed_bytes:
            border = (self._extent.start + self._written_bytes) // self._write_bytes + 1
            end = min(total_bytes, border * self._write_bytes - self._extent.start)
            if end > self._hashed_bytes:
                break
            self._write(end)

    def broke_off(self) -> None:
        """See Sink: what has landed and is not stored is."""
        if self._written_bytes < self._hashed_bytes:
            self._write(self._hashed_bytes)

    def _worth_telling(self) -> bool:
        """Whether the next page that somebody waits for has landed since, or much else has."""
        page_bytes = self._extent.block.geometry.page_bytes
        wanted_bytes = (self._flight.wanted_page + 1 - self._extent.first_page) * page_bytes
        wanted = self._told_bytes < wanted_bytes <= self._hashed_bytes
        return wanted or self._hashed_bytes - self._told_bytes >= STEP_BYTES

    def tell(self) -> None:
        """On the loop: the flight, and all who wait for it, learn of all that has landed."""
        self._progress(bytes(self._checksums))
        self._flight.tell()

    def _hash(self, count_bytes: int) -> None:
        page_bytes, view = self._extent.block.geometry.page_bytes, self.view
        while self._hashed_bytes < count_bytes:
            end = min(self._hashed_bytes + page_bytes, self._size_bytes)
            if end > count_bytes:
                return
            page = view[self._hashed_bytes : end]
            self._checksums += checksum(page)
            self._part_sums += parts.of_page(page, self._part_bytes)
            self._hashed_bytes = end

    def _write(self, end: int) -> None:
        page_bytes = self._extent.block.geometry.page_bytes
        first = self._written_bytes // page_bytes
        beyond = -(-end // page_bytes)
        sums = bytes(self._checksums[first * CHECKSUM_BYTES : beyond * CHECKSUM_BYTES])
        data = self.view[self._written_bytes : end]
        self._written_bytes = end
        block, first_page = self._extent.block, self._extent.first_page + first
        if self._store.write(block, first_page, data, sums):
            self.stored_pages += beyond - first
            of_parts = self._part_sums[first * parts.SUMS_BYTES : beyond * parts.SUMS_BYTES]
            self._store.part_sums.note(block, first_page, of_parts)

    def _progress(self, checksums: bytes) -> None:
        flight = self._flight
        if len(checksums) <= len(flight.checksums):
            return
        flight.checksums = checksums
        flight.landed_pages = len(flight.checksums) // CHECKSUM_BYTES
        flight.wake_served()
        self._progressed()


class ProbeLanding(Landing):
    """The sink of a probe (origin.base.ProbeSink).

    found_by: called on the loop, with the probe and its version, before any other progress.
    """

    def __init__(
        self, probe: Probe, *landing: Any, found_by: Callable[[Probe, ObjectVersion], None]
    ) -> None:
        super().__init__(probe, *landing)
        self._probe = probe
        self._found_by = found_by

    def found(self, version: ObjectVersion) -> None:
        """See `ProbeSink.found`."""
        self._extent = self._extent.within(version)
        self._size_bytes = self._extent.length_bytes
        self._hop(self._found_by, self._probe, version)

    def tell(self) -> None:
        """See Landing; not before its version is told."""
        if self._probe.version is not None:
            super().tell()
