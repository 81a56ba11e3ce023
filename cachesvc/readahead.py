"""Readahead: what a reader who reads in order will ask for next is under way before it asks.

Story: the reader tells of every read that has to wait (`asked`), with all that the GET for its end
brings, because hits on that are not told; and of hits where somebody reads in order already
(`hit`). Once a stream is in order (core/sequence.py), the blocks behind it are
brought, each in a task that joins the coalescer like any reader: as many as it has read in order so
far, within MAX_BLOCKS, and `max_bytes` for all streams. A slow reader finds them all here and has
one GET in flight for each block that it reads; a fast one has as many as may fly. So neither the
reader's speed nor the origin's need to be measured.

Rules
- Only blocks that this node owns, never beyond the object, never what is here or under way already:
  a full scan costs the origin every byte once.
- Readers come first: a block is brought only while the coalescer has flights to spare.
- A reader that leaves before its last bytes are in hand, fails, or is silent for IDLE_S, takes
  along what was brought for it and has not landed; so does a store that does not keep what was
  brought.
- Everything here runs on the event loop, except `hit`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from cachesvc.core.blocks import BlockRef, Slice
from cachesvc.core.errors import CacheError
from cachesvc.core.sequence import Sequence, Stream
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.flight import Hold
from cachesvc.joining import Joiner

MAX_BLOCKS = 32
MAX_READAHEAD_BYTES = 256 << 20
MAX_VERSION_COUNT = 256
MAX_FOREIGN_BLOCKS = 1024  # how far the next block of our own is looked for
IDLE_S = 10.0

Owns = Callable[[ObjectName, int], bool]
Key = tuple[ObjectName, str, int]


def owns_all(_name: ObjectName, _block_index: int) -> bool:
    """A node that is alone."""
    return True


@dataclass(slots=True, eq=False)
class _Ahead:
    """What is brought for one stream. `beyond`: no block from this one on has been begun."""

    version: ObjectVersion
    beyond: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Followed:
    """One version: who reads it in order, what is brought for them, when it was read last.
    useless: what was brought did not come, or did not stay.
    """

    sequence: Sequence
    ahead: dict[Stream, _Ahead] = field(default_factory=dict)
    read_at: float = 0.0
    useless: bool = False

    def cancel(self) -> None:
        for ahead in self.ahead.values():
            for task in ahead.tasks:
                task.cancel()
        self.ahead.clear()


class Readahead:
    """The readahead of one node. max_bytes: under way for all readers together; 0: none."""

    def __init__(self, joiner: Joiner, max_bytes: int, owns: Owns) -> None:
        self._joiner = joiner
        self._max_bytes = max_bytes
        self._owns = owns
        self._followed: OrderedDict[Key, _Followed] = OrderedDict()
        # of the versions that are read in order and not to their ends yet
        self._running: dict[Key, tuple[Stream, ...]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._under_way_bytes = 0
        self._joining: set[asyncio.Task[None]] = set()

    @property
    def under_way_bytes(self) -> int:
        return self._under_way_bytes

    @property
    def running(self) -> bool:
        """Whether anything is read in order, so that hits may mean something."""
        return bool(self._running)

    def hit(self, parts: list[Slice]) -> None:
        """A read was answered from the store. From any thread. Within what a stream has read it
        says nothing, and the loop is not woken: that takes longer than a small hit.
        """
        if not self._running or not parts:
            return
        streams = self._running.get(_key(parts[0].block.version), ())
        start, last = parts[0].object_start, parts[-1]
        end = last.object_start + last.length_bytes
        if streams and not any(one.began <= start and end <= one.next for one in streams):
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self.asked, parts)

    def asked(self, parts: list[Slice], last: Hold | None = None) -> None:
        """Somebody reads these slices of one version. last: his hold, if he has to wait, on what
        brings the last one.
        """
        if not parts or not self._max_bytes:
            return
        if last is not None:
            parts = [*parts[:-1], _with_window(parts[-1], last)]
        block = parts[0].block
        followed = self._follow(block.version, block.geometry.block_bytes)
        end = self._end(parts)
        if end is None or followed.useless:
            return
        length_bytes = sum(part.length_bytes for part in parts)
        stream = followed.sequence.read(parts[0].object_start, end, length_bytes)
        self._forget_lost(followed)
        if stream is not None and stream.in_order:
            ahead = followed.ahead.setdefault(stream, _Ahead(block.version))
            self._bring_more(followed, stream, ahead, block)
        self._note_running(block.version, followed)

    def _note_running(self, version: ObjectVersion, followed: _Followed) -> None:
        streams = tuple(followed.ahead)
        if any(stream.next < version.size_bytes for stream in streams):
            self._running[_key(version)] = streams
        else:
            self._running.pop(_key(version), None)

    def left(self, version: ObjectVersion) -> None:
        """A reader of the version left in mid-answer, or failed."""
        self._drop(_key(version))

    def close(self) -> None:
        """Call off all that is under way."""
        for key in list(self._followed):
            self._drop(key)
        if self._sweeper is not None:
            self._sweeper.cancel()

    # -- who reads what

    def _follow(self, version: ObjectVersion, block_bytes: int) -> _Followed:
        key = _key(version)
        followed = self._followed.get(key)
        if followed is None:
            followed = self._followed[key] = _Followed(Sequence(block_bytes))
            while len(self._followed) > MAX_VERSION_COUNT:
                self._drop(next(iter(self._followed)))
        self._followed.move_to_end(key)
        self._loop = asyncio.get_running_loop()
        followed.read_at = self._loop.time()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(IDLE_S, self._sweep)
        return followed

    def _sweep(self) -> None:
        """Forget versions that nobody has read for IDLE_S: the first ones are the oldest."""
        assert self._loop is not None
        self._sweeper = None
        now = self._loop.time()
        for key, followed in list(self._followed.items()):
            left_s = followed.read_at + IDLE_S - now
            if left_s > 0:
                self._sweeper = self._loop.call_later(left_s, self._sweep)
                return
            self._drop(key)

    def _forget_lost(self, followed: _Followed) -> None:
        """A stream that was taken over, or displaced, needs nothing more."""
        for stream in [one for one in followed.ahead if one not in followed.sequence.streams]:
            del followed.ahead[stream]

    def _drop(self, key: Key) -> None:
        followed = self._followed.pop(key, None)
        if followed is not None:
            followed.cancel()
            self._running.pop(key, None)

    # -- where the next read begins

    def _end(self, parts: list[Slice]) -> int | None:
        """Where a read in order goes on behind the slices; None if they are not in order."""
        position = parts[0].object_start
        for part in parts:
            if part.object_start != position:
                return None
            position += part.length_bytes
            block = part.block
            if part.end == block.length_bytes:
                position = self._next(block, block.index + 1) * block.geometry.block_bytes
        return position

    def _next(self, block: BlockRef, index: int) -> int:
        """The first block of our own from `index` on, of the object of `block`."""
        name = block.version.name
        for candidate in range(index, index + MAX_FOREIGN_BLOCKS):
            beyond = candidate * block.geometry.block_bytes >= block.version.size_bytes
            if beyond or self._owns(name, candidate):
                return candidate
        return index + MAX_FOREIGN_BLOCKS

    # -- bringing

    def _bring_more(
        self, followed: _Followed, stream: Stream, ahead: _Ahead, like: BlockRef
    ) -> None:
        """Begin the blocks within the window that are not begun, as far as there is room."""
        version, geometry = ahead.version, like.geometry
        index = self._next(like, stream.furthest // geometry.block_bytes)
        for _ in range(min(MAX_BLOCKS, stream.length_bytes // geometry.block_bytes)):
            if index * geometry.block_bytes >= version.size_bytes:
                return
            if index >= ahead.beyond:
                block = BlockRef(version, index, geometry)
                room = self._under_way_bytes + block.length_bytes <= self._max_bytes
                if not room or not self._joiner.has_room(len(self._joining)):
                    return
                ahead.beyond = index + 1
                self._begin(followed, stream, ahead, block)
            index = self._next(like, index + 1)

    def _begin(self, followed: _Followed, stream: Stream, ahead: _Ahead, block: BlockRef) -> None:
        assert self._loop is not None
        self._under_way_bytes += block.length_bytes
        landed = self._loop.create_task(self._bring(followed, block))
        ahead.tasks.add(landed)
        self._joining.add(landed)

        def over(task: asyncio.Task[None]) -> None:
            self._joining.discard(task)
            self._under_way_bytes -= block.length_bytes
            ahead.tasks.discard(task)
            if followed.ahead.get(stream) is ahead and not task.cancelled():
                self._bring_more(followed, stream, ahead, block)

        landed.add_done_callback(over)

    async def _bring(self, followed: _Followed, block: BlockRef) -> None:
        """Have the block in the store. What fails is for its reader to learn, who asks himself."""
        hold = None
        try:
            hold = await self._joiner.join(block, block.all_pages)
            self._joining -= {asyncio.current_task()}
            for flight in hold.flights:
                await flight.wait(flight.extent.first_page, stored=True)
            kept = not hold.flights or self._joiner.stored(block)
        except CacheError:
            kept = False
        finally:
            if hold is not None:
                hold.close()
        if not kept:
            followed.useless = True
            followed.cancel()


def _with_window(part: Slice, hold: Hold) -> Slice:
    """The slice, up to the end of the extent that its reader began for its last page."""
    flight = hold.covering((part.end - 1) // part.block.geometry.page_bytes)
    if flight is None or flight not in hold.began:
        return part
    return Slice(part.block, part.start, flight.extent.start + flight.extent.length_bytes)


def _key(version: ObjectVersion) -> Key:
    return version.name, version.etag, version.size_bytes
