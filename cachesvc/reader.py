"""The reader: THE hot path. From a request to the bytes that answer it, wherever they are.

Story: `hit` runs on any thread and never waits: version from the keeper's table, blocks from the
store, pins for what is present; None if anything is missing. `read` runs on the event loop: it asks
the origin for the version where needed (prober.py: with the first bytes, where nothing is known),
joins the coalescer for every block at once, and yields
segments as their pages become available; a file that is not open and a page that must be checked
are left to a thread (aside.py). Both make the same segments.

Rules
- One answer, one version. A page that is sent in part is checked here and sent from memory, with a
  checksum of the part; a whole page goes from the file with its stored checksum, which the receiver
  checks. So no byte leaves without a checksum that was made when it came from the origin.
- A page that fails its check is a miss: the block is dropped and filled again.
- Whoever takes descriptors checks whole pages itself. Who maps waits until they are stored, so that
  all share the page cache's one copy; who copies gets bytes of what has landed, the sooner.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from cachesvc.answer import Answer, FilePart, Segment, passed
from cachesvc.aside import Aside, on_a_thread
from cachesvc.bypass import Bypass
from cachesvc.coalescer import Coalescer
from cachesvc.core.blocks import Slice, slices
from cachesvc.core.errors import NotCacheable, ObjectChanged, Overloaded, RangeError
from cachesvc.core.format import checksum
from cachesvc.core.request import MAX_REQUEST_BYTES, ReadRequest, StatRequest
from cachesvc.core.types import Geometry, ObjectName, ObjectVersion, Source, clamp
from cachesvc.flight import Flight, Hold
from cachesvc.joining import Joiner
from cachesvc.metrics import READ_RESULTS, Metrics
from cachesvc.origin.base import Origin
from cachesvc.pins import Pin
from cachesvc.prober import Prober
from cachesvc.readahead import Owns, Readahead, owns_all
from cachesvc.small import Hit, SmallReads
from cachesvc.store import Store
from cachesvc.versions import Checked, Versions
from cachesvc.way import Way, checks_all, way_of

_PIECES = 4  # a reader takes what is under way in so many pieces of a block, or less at once
_REJOINS = 8  # how often pages may be evicted under a reader before it gives up
_METRIC_SOURCE = {
    Source.DISK: "disk",
    Source.PEER: "peer",
    Source.JOINED: "origin",
    Source.ORIGIN: "origin",
    Source.BYPASS: "origin",
}


class Reader:
    """Reads for all lanes of a node. What is not async may be called from any thread.

    aside: how the event loop has a file opened or a page read without waiting for the disk.
    readahead_bytes, owns: see Readahead.
    """

    def __init__(
        self,
        origin: Origin,
        store: Store,
        coalescer: Coalescer,
        versions: Versions,
        metrics: Metrics,
        geometry: Geometry,
        *,
        aside: Aside = on_a_thread,
        readahead_bytes: int = 0,
        owns: Owns = owns_all,
    ) -> None:
        self.geometry = geometry
        self.versions = versions
        self._bypass = Bypass(origin, self._count)
        self._prober = Prober(store, coalescer, versions, geometry)
        self.unknown = self._prober.unknown
        self.store = store
        self._aside = aside
        joiner = Joiner(store, coalescer, aside)
        self._join = joiner.join
        self.readahead = Readahead(joiner, readahead_bytes, owns)
        self.small = SmallReads(store, geometry, self._checked_page, self._hit_small)
        metrics.before_a_look(self.small.settle)
        # told of an object of which somebody was sent wrong bytes, and asks with `verify`
        self.distrusted: Callable[[ObjectName], None] = lambda _name: None
        self._results = {result: metrics.requests.labels("read", result) for result in READ_RESULTS}
        self._stats = metrics.requests.labels("stat", "hit")
        self._stat_errors = metrics.requests.labels("stat", "error")
        self._bytes = {
            source: metrics.read_bytes.labels(word) for source, word in _METRIC_SOURCE.items()
        }

    async def stat(self, request: StatRequest) -> Answer:
        """The current version, and for how long to believe in it. No bytes.

        Raises: ObjectNotFound, AccessDenied, OriginError.
        """
        counter = self._stat_errors
        try:
            answer = self._answer(await self.versions.get(request.name, request.max_age_s))
            counter = self._stats
        finally:
            counter.inc()
        return answer

    def hit(self, request: ReadRequest, *, wait: bool = True) -> Answer | None:
        """The whole answer, if all of it is stored and its version is known; else None.

        Opens files and reads trailers and pages, but waits for no one. wait: False also waits for
        no disk: None where files are not open, or pages that are checked here not in memory.

        Raises: RangeError.
        """
        if request.bypass or request.verify:
            return None  # what is checked whole is read piece by piece
        answer = self._known(request)
        if answer is None or not answer.version.cacheable:
            return None
        try:
            parts = self._cut(answer.version, request)
            if not wait and not all(self._at_hand(part) for part in parts):
                return None
            for part in parts:
                segment = self.stored(part, Source.DISK, way_of(request), wait)
                if segment is None:
                    answer.close()
                    return None
                answer.segments.append(segment)
            self._hit(parts, [(one.source, one.length_bytes) for one in answer.segments])
        except BaseException:
            answer.close()
            raise
        return answer

    async def read(self, request: ReadRequest) -> Answer:
        """The answer, its segments to be taken from `more`, in order, each closed by the taker.

        Raises: ObjectNotFound, AccessDenied, RangeError, OriginError; while segments are taken also
        ObjectChanged and Overloaded. NotCacheable: the version named has no strong ETag.
        """
        try:
            return await (self._bypass.read(request) if request.bypass else self._open(request))
        except BaseException:
            self._results["error"].inc()
            raise

    async def _open(self, request: ReadRequest) -> Answer:
        async with AsyncExitStack() as exits:
            probed = None
            if request.version is not None:
                answer = Answer(request.version, 0.0)
            else:
                checked, probed = await self._prober.version(request)
                answer = self._answer(checked)
                answer.checked_at = checked.checked_at
            if probed is not None:
                exits.callback(probed.close)
            if answer.version.cacheable:
                parts = self._cut(answer.version, request)
                if request.verify:
                    self.small.forget(parts)
                    self.distrusted(request.name)
                answer.more = self._segments(answer.version, parts, way_of(request), probed)
            elif request.version is not None:
                raise NotCacheable(f"{request.name}: no strong ETag; read it with a bypass")
            answer.resources = exits.pop_all()
        return answer

    def hit_sent(self, parts: list[Slice]) -> None:
        """The lane has sent stored slices of one version without asking for the answer here."""
        self._hit(parts, [(Source.DISK, part.length_bytes) for part in parts])

    def broken(self, pin: Pin, error: OSError) -> None:
        """A lane could not send a pinned file: it was cut short, or its disk fails."""
        if error.errno == errno.ENODATA:
            self.store.drop(pin, "length")
        else:
            self.store.read_failed(pin, error)

    # -- what is stored

    def _known(self, request: ReadRequest) -> Answer | None:
        if request.version is not None:
            return Answer(request.version, 0.0)
        checked = self.versions.peek(request.name, request.max_age_s)
        return None if checked is None else self._answer(checked)

    def _answer(self, checked: Checked) -> Answer:
        assert checked.version is not None
        return Answer(checked.version, self.versions.fresh_for_s(checked))

    def _cut(self, version: ObjectVersion, request: ReadRequest) -> list[Slice]:
        name, size_bytes = request.name, version.size_bytes
        wanted = [clamp(name, start, end, size_bytes) for start, end in request.ranges]
        if sum(one.length_bytes for one in wanted) > MAX_REQUEST_BYTES:
            raise RangeError(
                f"{name}: more than {MAX_REQUEST_BYTES} bytes in one request; cut it up"
            )
        return [part for one in wanted for part in slices(version, one, self.geometry)]

    def _at_hand(self, part: Slice) -> bool:
        return part.pages & ~(self.store.at_hand(part.block) or 0) == 0

    def stored(
        self, part: Slice, source: Source = Source.DISK, way: Way = Way.PLAIN, wait: bool = True
    ) -> Segment | None:
        """The slice, if all its pages are present and those that must be checked are right."""
        look = self.store.pin if source is Source.DISK else self.store.hold
        pin = look(part.block)
        if pin is None:
            return None
        segment = None
        try:
            if part.pages & ~pin.present == 0:
                if way.passes:
                    segment = passed(pin, part, source)
                else:
                    segment = self._from_pin(pin, part, source, way, wait)
        finally:
            if segment is None:
                pin.close()
        return segment

    def _from_pin(
        self, pin: Pin, part: Slice, source: Source, way: Way, wait: bool
    ) -> Segment | None:
        segment = Segment(part.object_start, part.length_bytes, source, pin=pin)
        page_bytes = part.block.geometry.page_bytes
        by_page = checks_all(part, way)
        sums = []
        for start, end, page, whole in part.pieces() if by_page else part.sections():
            if whole and not by_page:
                segment.parts.append(FilePart(pin, start, end - start))
                sums.append(pin.checksums(page, -(-end // page_bytes)))
                continue
            data = self._checked_page(pin, page, wait)
            if data is None:
                return None
            first = page * page_bytes
            piece = memoryview(data)[start - first : end - first]
            if len(piece) < page_bytes // 2:
                piece = memoryview(bytes(piece))  # so that the answer does not hold the whole page
            segment.parts.append(piece)
            sums.append(pin.checksums(page, page + 1) if whole else checksum(piece))
        segment.checksums = b"".join(sums)
        return segment

    def _checked_page(self, pin: Pin, page: int, wait: bool = True) -> bytes | None:
        try:
            data = pin.page(page, wait=wait)
        except BlockingIOError:
            return None
        except OSError as error:
            self.store.read_failed(pin, error)
            return None
        if data is None:
            self.store.drop(pin, "page")
        return data

    # -- what is on its way

    async def _segments(
        self, version: ObjectVersion, parts: list[Slice], way: Way, probed: Hold | None
    ) -> AsyncGenerator[Segment, None]:
        holds: list[Hold] = []
        sent: list[tuple[Source, int]] = []
        wanted_bytes = sum(part.length_bytes for part in parts)
        try:
            for part in parts:
                holds.append(await self._join(part.block, part.pages, probed=probed))
            if probed is not None:
                probed.close()
            if holds:
                self.readahead.asked(parts, holds[-1])
            for part, hold in zip(parts, holds, strict=True):
                async for segment in self._slice(part, hold, way):
                    sent.append((segment.source, segment.length_bytes))
                    yield segment
                hold.close(served=True)
        except ObjectChanged:
            self.versions.forget(version)
            raise
        finally:  # who was handed all of his bytes need not come back for the end
            whole = sum(length_bytes for _, length_bytes in sent) == wanted_bytes
            for hold in holds:
                hold.close(served=whole)
            if not whole:
                self.readahead.left(version)
            self._count(_result(sent) if whole else "error", sent)

    async def _slice(self, part: Slice, hold: Hold, way: Way) -> AsyncGenerator[Segment, None]:
        """Run by run: what is stored, then what has landed, waiting for what is under way."""
        if way is Way.PASSED:
            for joined in hold.flights:
                await joined.wait(joined.extent.first_page, stored=True)
        page_bytes = part.block.geometry.page_bytes
        holds = [hold]  # newest first
        position = part.start
        try:
            while position < part.end:
                page = position // page_bytes
                flight = next((f for h in holds if (f := h.covering(page))), None)
                if flight is not None:
                    end = min(part.end, position + self.geometry.block_bytes // _PIECES)
                    last_page = min((end - 1) // page_bytes, flight.extent.beyond_page - 1)
                    await flight.wait(page, last_page, stored=way is Way.PASSED)
                source, segment = _source(flight, holds), None
                if flight is not None and way is not Way.PASSED:
                    segment = _landed(part, position, flight, source)
                if segment is None:
                    segment = await self._from_store(part, position, flight, source, way)
                if segment is None and flight is not None:
                    segment = _landed(part, position, flight, source)
                if segment is None:
                    if len(holds) > _REJOINS:
                        raise Overloaded(f"{part.block}: pages leave faster than they are read")
                    rest = Slice(part.block, position, part.end)
                    holds.insert(0, await self._join(part.block, rest.pages, keep=True))
                    continue
                position = segment.start - part.block.start + segment.length_bytes
                yield segment
        finally:
            for again in holds[:-1]:
                again.close(served=position >= part.end)

    async def _from_store(
        self, part: Slice, position: int, flight: Flight | None, source: Source, way: Way
    ) -> Segment | None:
        """The longest segment at `position` that is stored; None if its page is not."""
        block, end = part.block, part.end
        if flight is not None and way is not Way.PASSED:
            end = min(end, flight.extent.beyond_page * block.geometry.page_bytes)
        wanted = Slice(block, position, end)
        present = self.store.at_hand(block)
        if present is None:
            return await self._aside(partial(self._stored_run, wanted, source, way))
        run = wanted.run(present)
        if run is None:
            return None
        if not way.passes and (checks_all(run, way) or not run.whole):
            return await self._aside(partial(self.stored, run, source, way))
        return self.stored(run, source, way)

    def _stored_run(self, wanted: Slice, source: Source, way: Way) -> Segment | None:
        run = wanted.run(self.store.present(wanted.block))
        return None if run is None else self.stored(run, source, way)

    def _hit(self, parts: list[Slice], sent: list[tuple[Source, int]]) -> None:
        self.readahead.hit(parts)
        self._count("hit", sent)

    def _hit_small(self, hits: Sequence[Hit]) -> None:
        if self.readahead.running:
            for block, start, end, _ in hits:
                self.readahead.hit([Slice(block, start, end)])
        self._results["hit"].inc(len(hits))
        self._bytes[Source.DISK].inc(sum(end - start for _, start, end, _ in hits))

    def _count(self, result: str, sent: list[tuple[Source, int]]) -> None:
        self._results[result].inc()
        for source, count_bytes in sent:
            self._bytes[source].inc(count_bytes)


def _landed(part: Slice, position: int, flight: Flight, source: Source) -> Segment | None:
    """What has landed from `position` on, from memory; None once that was given back."""
    landed = Slice(part.block, position, min(part.end, flight.landed_end))
    data = flight.bytes_of(landed.start, landed.end) if landed.length_bytes > 0 else None
    if data is None:
        return None
    sums, page_bytes = [], part.block.geometry.page_bytes
    for start, end, page, whole in landed.sections():
        if whole:
            sums.append(flight.checksums_of(page, -(-end // page_bytes)))
        else:
            sums.append(checksum(data[start - landed.start : end - landed.start]))
    return Segment(landed.object_start, landed.length_bytes, source, b"".join(sums), [data])


def _source(flight: Flight | None, holds: list[Hold]) -> Source:
    if flight is None:
        return Source.DISK
    if not any(flight in hold.began for hold in holds):
        return Source.JOINED
    return Source.PEER if flight.peer else Source.ORIGIN


def _result(sent: list[tuple[Source, int]]) -> str:
    sources = {source for source, _ in sent}
    if sources & {Source.ORIGIN, Source.PEER}:
        return "filled"
    return "joined" if Source.JOINED in sources else "hit"
