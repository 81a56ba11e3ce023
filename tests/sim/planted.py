"""Known bugs, to be planted into the code under test: the simulator must find each of them.

Rules: a bug is one small change of one function, as somebody might make it by mistake; planting it
lasts as long as the context.

Story: `planted(name)` patches; test_sim.py runs seeds until a violation is found, and fails if none
is. A check that cannot fail is worthless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from cachesvc_client.failover import Failover
from cachesvc_client.receipt import Check
from cachesvc_client.versions import VersionCache

import cachesvc.coalescer
from cachesvc.answer import Segment
from cachesvc.coalescer import Coalescer
from cachesvc.core.errors import CacheError
from cachesvc.core.format import TRAILER_BYTES, Trailer, decode, trailer_offset
from cachesvc.core.plan import plan
from cachesvc.core.types import ByteRange, ObjectVersion
from cachesvc.device import Device
from cachesvc.disk.base import BlockFile
from cachesvc.disk.memory import MemoryDisk
from cachesvc.flight import Flight
from cachesvc.opener import Opener
from cachesvc.origin.base import Sink
from cachesvc.origin.memory import MemoryOrigin
from cachesvc.pins import Pin
from cachesvc.reader import Reader
from cachesvc.stock import Stock
from cachesvc.versions import Versions, _Look
from cachesvc.writer import Writer

Patch = tuple[Any, str, Any]  # where, what, by what
BUGS: dict[str, Callable[[], Patch]] = {}


def bug(make: Callable[[], Patch]) -> Callable[[], Patch]:
    """Register a bug by the name of its function."""
    BUGS[make.__name__.replace("_", " ")] = make
    return make


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The code under test has this bug meanwhile."""
    where, what, instead = BUGS[name]()
    before = where.__dict__[what]
    setattr(where, what, instead)
    try:
        yield
    finally:
        setattr(where, what, before)


@bug
def partial_pages_are_sent_unchecked() -> Patch:
    def checked_page(self: Reader, pin: Pin, page: int) -> bytes:
        block = pin.held.trailer.block
        start = page * block.geometry.page_bytes
        return pin.pread(start, start + block.page_length_bytes(page))

    return Reader, "_checked_page", checked_page


@bug
def the_client_checks_nothing() -> Patch:
    return Check, "right", property(lambda _check: True)


@bug
def the_origin_ignores_if_match() -> Patch:
    real = MemoryOrigin.fetch

    async def fetch(
        self: MemoryOrigin, version: ObjectVersion, wanted: ByteRange, sink: Sink
    ) -> None:
        found, data = self._find(version.name)
        if len(data) != version.size_bytes or not found.cacheable:
            await real(self, version, wanted, sink)
        else:
            await real(self, found, wanted, sink)

    return MemoryOrigin, "fetch", fetch


@bug
def a_version_is_believed_for_ever() -> Patch:
    def peek(self: Versions, name: Any, max_age_s: float | None = None) -> Any:
        checked = self._entries.get(name)
        return checked if checked is not None and checked.version is not None else None

    return Versions, "peek", peek


@bug
def the_client_believes_a_version_too_long() -> Patch:
    real = VersionCache.put

    def put(self: VersionCache, version: ObjectVersion, asked_s: float, until_s: float) -> None:
        real(self, version, asked_s, until_s + 1.0)

    return VersionCache, "put", put


@bug
def an_early_head_is_joined() -> Patch:
    real = Versions._ask

    async def ask(self: Versions, name: Any, asked_at: float, limit_s: float, probe: Any) -> Any:
        return await real(self, name, asked_at, float("inf"), probe)

    return Versions, "_ask", ask


@bug
def follow_up_requests_name_no_version() -> Patch:
    real = Failover._ask

    def ask(self: Failover, member: Any, request: Any, target: Any) -> Any:
        if getattr(request, "version", None) is not None:
            request = replace(request, version=None)
        return (yield from real(self, member, request, target))

    return Failover, "_ask", ask


@bug
def eviction_leaves_the_file() -> Patch:
    return MemoryDisk, "unlink", lambda self, block_id: None


@bug
def the_trailer_is_written_before_the_data() -> Patch:
    real = Writer._put

    def put(
        self: Writer, file: Any, trailer: Trailer, first_page: int, data: Any, added: int = -1
    ) -> int:
        file.pwrite(trailer.encode(), trailer_offset(trailer.block))
        return real(self, file, trailer, first_page, data, added)

    return Writer, "_put", put


@bug
def the_data_is_written_again_after_its_trailer() -> Patch:
    real = Writer._put

    def put(
        self: Writer, file: Any, trailer: Trailer, first_page: int, data: Any, added: int = -1
    ) -> int:
        taken_bytes = real(self, file, trailer, first_page, data, added)
        file.pwrite(data, first_page * trailer.block.geometry.page_bytes)
        return taken_bytes

    return Writer, "_put", put


@bug
def waiters_are_not_woken() -> Patch:
    return Flight, "wake", lambda self: None


@bug
def buffers_are_never_given_back() -> Patch:
    return Coalescer, "_give_back", lambda self, flight: None


@bug
def segments_keep_their_pins() -> Patch:
    return Segment, "close", lambda self: None


@bug
def flights_are_not_joined() -> Patch:
    real = Coalescer.join

    def join(self: Coalescer, block: Any, wanted: int, **how: Any) -> Any:
        hidden = self._by_block.pop(block.id, None)
        try:
            return real(self, block, wanted, **how)
        finally:
            if hidden is not None:
                self._by_block.setdefault(block.id, [])[:0] = hidden

    return Coalescer, "join", join


@bug
def the_first_to_leave_stops_the_flight() -> Patch:
    real = Coalescer._leave

    def leave(self: Coalescer, flight: Flight, served: bool) -> None:
        if flight.holders > 1 and not flight.done and flight.task is not None:
            flight.task.cancel()
        real(self, flight, served)

    return Coalescer, "_leave", leave


@bug
def a_failed_read_keeps_its_hold() -> Patch:
    real = Flight.wait

    async def wait(self: Flight, page: int) -> None:
        try:
            await real(self, page)
        except CacheError:
            self.holders += 1
            raise

    return Flight, "wait", wait


@bug
def an_extent_is_planned_over_present_pages() -> Patch:
    return cachesvc.coalescer, "plan", lambda block, wanted, taken: plan(block, wanted, 0)


@bug
def capacity_is_not_kept() -> Patch:
    def reserve(self: Stock, device: Device, block_id: bytes, need_bytes: int) -> bool:
        with self.lock:
            device.reserved_bytes += need_bytes
        return True

    return Stock, "reserve", reserve


@bug
def a_file_need_not_be_what_its_name_says() -> Patch:
    def prove(self: Opener, block_id: bytes, file: BlockFile) -> Trailer:
        return decode(file.pread(TRAILER_BYTES, max(0, file.size_bytes() - TRAILER_BYTES)))

    return Opener, "_prove", prove


@bug
def a_dropped_block_stays_in_the_index() -> Patch:
    def discard(self: Stock, device: Device, block_id: bytes, mark: int, reason: str) -> bool:
        self.remove(device, [block_id], self.open_blocks.detach([block_id]))
        return True

    return Stock, "discard", discard


@bug
def a_defect_of_a_node_stays_hidden() -> Patch:
    real = Coalescer._fly

    async def fly(self: Coalescer, flight: Flight, landing: Any) -> None:
        if flight.extent.first_page == 1:
            raise ZeroDivisionError
        await real(self, flight, landing)

    return Coalescer, "_fly", fly


@bug
def an_early_probe_is_believed() -> Patch:
    return _Look, "seen_at", property(lambda self: float("inf") if self.probe else self._seen_at)


@bug
def a_probe_is_sent_beside_a_fill() -> Patch:
    return Coalescer, "unknown", lambda self, name: name not in self._probes
