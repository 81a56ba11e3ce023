"""One node of the simulated cluster: the real store, coalescer, versions and reader, and a lane
without sockets.

Rules
- The lane does what cachesvc/lane.py does: `hit` first, else `read`; for each segment a header,
  then the bytes, taken from their file as late as they are sent. Some reads are answered by files,
  as on the Unix lane, and sent as the bytes that their client would see. All messages go through
  the codec, those of small hot reads by the hand of the real node.
- A crash ends every task of the node at once and leaves only the files. A node that comes back
  recovers step by step while it serves.
- What a node may never do is held against it here: an InternalError, a ProtocolError, Overloaded
  with room to spare, more space than it was given; its GETs are watched by `NodeOrigin`, which
  stands between node and origin.

Story: a client opens a Channel and `accept` answers into it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cachesvc.answer import FilePart, Segment, take
from cachesvc.aside import Held
from cachesvc.coalescer import Coalescer
from cachesvc.core.blocks import cuts
from cachesvc.core.errors import CacheError, InternalError, Overloaded, ProtocolError
from cachesvc.core.format import checksum
from cachesvc.core.ring import Member, MemberTable
from cachesvc.core.types import ObjectVersion
from cachesvc.metrics import Metrics
from cachesvc.reader import Reader
from cachesvc.store import Store
from cachesvc.versions import Versions
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead, SegmentHead
from cachesvc.wire.frame import PREFIX_BYTES, Kind, encode, parse_prefix
from cachesvc.wire.v1 import cache_pb2
from tests.sim.channel import Channel
from tests.sim.disks import SimDisk
from tests.sim.loop import OWNER
from tests.sim.node_origin import NodeOrigin

if TYPE_CHECKING:
    from tests.sim.world import World

FILES_EVERY = 5  # which reads are answered as on the Unix lane


class SimNode:
    """See above. `light`: its network works. `damaged`: its disks were tampered with."""

    def __init__(self, world: World, member: Member) -> None:
        self.world = world
        self.member = member
        self.node_id = member.node_id
        self.table = MemberTable()
        self.alive = False
        self.damaged = False
        self.light = asyncio.Event()
        self.light.set()
        self.dark_until = 0.0
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._files: list[dict[bytes, bytearray]] = [{} for _ in range(world.setup.disk_count)]
        self._channels: dict[Channel, None] = {}
        self.boot()

    # -- life

    def boot(self) -> None:
        """Start on what the disks hold."""
        assert not self.alive
        setup, loop = self.world.setup, self.world.loop
        self._read_count = 0
        self.metrics = Metrics()
        self.disks = [
            SimDisk(f"{self.node_id}.{number}", files, self.violate)
            for number, files in enumerate(self._files)
        ]
        self.store = Store(
            self.disks,
            setup.capacity_bytes,
            self.metrics,
            policy=setup.policy,
            clock=loop.time,
            max_idle_open_count=setup.max_idle_open_count,
        )
        self.shares = [device.capacity_bytes for device in self.store.devices]
        origin = NodeOrigin(self)
        self.coalescer = Coalescer(
            origin,
            self.store,
            self.metrics,
            loop.call_soon,
            max_gets=setup.max_gets,
            max_waiting_count=setup.max_waiting_count,
            max_buffer_bytes=setup.max_buffer_bytes,
            write_bytes=setup.write_bytes,
        )
        self.versions = Versions(origin, setup.revalidate_s, loop.time)
        self.reader = Reader(
            origin,
            self.store,
            self.coalescer,
            self.versions,
            self.metrics,
            setup.geometry,
            aside=self._aside,
        )
        self.alive = True
        self._spawn(self._recover())

    async def _recover(self) -> None:
        for _ in self.store.recover():
            self.check()
            await asyncio.sleep(self.world.rng.choice((0.0, 0.0, 0.01)))
        self.world.trace("recovered", self.node_id, self.store.stored_count)

    async def _aside(self, work: Callable[[], Held | None]) -> Held | None:
        """A disk that keeps its caller waiting, before it answers or before that is heard."""
        await asyncio.sleep(self.world.rng.choice((0.0, 0.0, 0.001)))
        held = work()
        self.world.count("done aside")
        if held is None:
            await asyncio.sleep(self.world.rng.choice((0.0, 0.001)))
        return held

    def crash(self) -> None:
        """kill -9: the files stay."""
        self.alive = False
        for disk in self.disks:
            disk.dead = True
        for task in list(self.tasks):
            task.cancel()
        for channel in list(self._channels):
            channel.hang_up()

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        def start() -> asyncio.Task[None]:
            OWNER.set(self)
            task: asyncio.Task[None] = self.world.loop.create_task(coroutine)
            return task

        return copy_context().run(start)

    # -- what may never be

    def violate(self, text: str) -> None:
        self.world.violate(f"{self.node_id}: {text}")

    def check(self) -> None:
        """What must hold between any two steps of the node."""
        if not self.alive:
            return
        for device, disk, share in zip(self.store.devices, self.disks, self.shares, strict=True):
            if device.used_bytes > share:
                self.violate(f"{disk.name} uses {device.used_bytes} of {share} bytes")
            if min(device.reserved_bytes, device.doomed_bytes) < 0:
                self.violate(f"{disk.name} counts less than nothing")
            if device.failure or self.store.recovering:
                continue
            if disk.taken_bytes() > share:
                self.violate(f"the files of {disk.name} take {disk.taken_bytes()} of {share} bytes")
            if set(device.index.ids()) != disk.files.keys():
                self.violate(f"index and files of {disk.name} differ")
            for block_id, blob in disk.blobs():
                slot = device.index.get(block_id)
                taken_bytes = -(-len(blob) // 4096) * 4096
                if slot is None or blob.damaged:
                    continue
                if device.index.size_bytes(slot) != taken_bytes:
                    self.violate(f"the index has a wrong size of a file of {disk.name}")

    def check_idle(self) -> None:
        """What must hold once nobody asks anything any more."""
        if self.coalescer.flight_count or self.coalescer.buffer_bytes:
            self.violate(
                f"{self.coalescer.flight_count} flights and {self.coalescer.buffer_bytes} bytes of"
                " buffers are left"
            )
        known = self.store.open_blocks
        open_count = sum(disk.open_count for disk in self.disks)
        if not open_count == len(known) == known.idle_count:
            self.violate(
                f"{open_count} files are open, {len(known)} known, {known.idle_count} idle"
            )
        for device in self.store.devices:
            if device.reserved_bytes or device.doomed_bytes:
                self.violate(f"{device.reserved_bytes} reserved, {device.doomed_bytes} doomed left")
        if self.store.recovering:
            self.violate("recovery never ended")

    # -- the lane

    def accept(self, raw: bytes, is_stat: bool) -> Channel:
        """Begin to answer a request."""
        channel = Channel()
        self._channels[channel] = None
        task = self._spawn(self._serve(channel, raw, is_stat))
        channel.task = task
        task.add_done_callback(lambda _: self._channels.pop(channel, None))
        return channel

    async def _serve(self, channel: Channel, raw: bytes, is_stat: bool) -> None:
        try:
            if is_stat:
                await self._stat(channel, raw)
            else:
                await self._read(channel, raw)
        except ConnectionError:
            pass
        except CacheError as error:
            self._judge(error)
            self.world.trace("refuses", self.node_id, type(error).__name__)
            if is_stat:
                message = cache_pb2.StatAnswer(error=codec.error_message(error))
                frame = message.SerializeToString()
            else:
                frame = codec.pack_error_head(error).SerializeToString()
            with suppress(ConnectionError):
                await channel.send((frame, 0))
        except Exception as error:
            self.violate(f"a request broke: {error!r}")
        finally:
            channel.hang_up()
            self.check()

    def _judge(self, error: CacheError) -> None:
        early = isinstance(error, Overloaded) and not self.world.setup.narrow
        early = early and "pages leave faster" not in str(error)
        if early or isinstance(error, InternalError | ProtocolError):
            self.violate(f"{type(error).__name__} is not justified: {error}")

    async def _stat(self, channel: Channel, raw: bytes) -> None:
        request = codec.unpack_stat(codec.parse(cache_pb2.StatRequest, raw))
        channel.patient = True
        answer = await self.reader.stat(request)
        channel.patient = False
        message = codec.pack_stat_answer(answer.version, answer.fresh_for_s, self.table.epoch)
        await channel.send((message.SerializeToString(), 0))

    async def _read(self, channel: Channel, raw: bytes) -> None:
        request = codec.unpack_read(codec.parse(cache_pb2.ReadRequest, raw))
        self._read_count += 1
        if self._read_count % FILES_EVERY == 0 and not request.verify:
            copies = self._read_count % (2 * FILES_EVERY) == 0
            request = replace(request, descriptors=True, landed_as_bytes=copies)
        elif await self._small(channel, raw):
            return
        answer = self.reader.hit(request)
        if answer is None:
            channel.patient = True
            answer = await self.reader.read(request)
            channel.patient = False
        version: ObjectVersion | None = answer.version
        try:
            while True:
                channel.patient = answer.more is not None
                segment = await take(answer)
                channel.patient = False
                if segment is not None and segment.file_offset is not None:
                    segment = self._unpassed(segment, segment.file_offset)
                head = ReadHead(
                    () if segment is None else (_head_of(segment),),
                    version,
                    answer.fresh_for_s,
                    last=segment is None,
                    epoch=self.table.epoch,
                )
                version = None
                raw_head = codec.pack_read_head(head).SerializeToString()
                if segment is None:
                    await channel.send((raw_head, 0))
                    return
                self.world.count(f"from {segment.source.name.lower()}")
                try:
                    await channel.send((raw_head, segment.length_bytes))
                    await self._body(channel, segment)
                finally:
                    segment.close()
        finally:
            await answer.aclose()

    async def _small(self, channel: Channel, raw: bytes) -> bool:
        """Answer a small hot read in one step, if it is one."""
        frame = self.reader.small.answer(encode(Kind.READ, raw), self.table.epoch)
        if frame is None:
            return False
        self.world.count("small hot reads")
        prefix = parse_prefix(frame)
        border = PREFIX_BYTES + prefix.header_bytes
        await channel.send((frame[PREFIX_BYTES:border], prefix.body_bytes))
        await channel.send(frame[border:])
        self.reader.small.sent()
        return True

    def _unpassed(self, segment: Segment, offset: int) -> Segment:
        """A passed file as the bytes that its client sees. Of a page that is cut, it checks the
        whole: if that is wrong, the checksum sent here is too.
        """
        self.world.count("passed as a file")
        pin, end = segment.pin, offset + segment.length_bytes
        assert pin is not None
        page_bytes = pin.held.trailer.block.geometry.page_bytes
        first_page, sums = offset // page_bytes, b""
        try:
            for start, beyond in cuts(offset, end, page_bytes):
                page = start // page_bytes
                told = segment.checksums[8 * (page - first_page) : 8 * (page - first_page + 1)]
                assert told == pin.checksums(page, page + 1)
                data = pin.page(page)
                if data is not None:
                    told = checksum(data[start - page * page_bytes : beyond - page * page_bytes])
                sums += told
        except OSError as error:
            self.reader.broken(pin, error)
            segment.close()
            raise ConnectionError("the file could not be passed") from error
        part = FilePart(pin, offset, segment.length_bytes)
        return replace(segment, checksums=sums, parts=[part], file_offset=None)

    async def _body(self, channel: Channel, segment: Segment) -> None:
        rng = self.world.rng
        for part in segment.parts:
            length = part.length_bytes if isinstance(part, FilePart) else len(part)
            position = 0
            while position < length:
                end = length if rng.random() < 0.7 else rng.randint(position + 1, length)
                if rng.random() < 0.15:
                    await asyncio.sleep(rng.choice((0.0, 0.001, 0.01)))
                if isinstance(part, FilePart):
                    chunk = self._from_file(part, position, end)
                else:
                    chunk = bytes(part[position:end])
                await channel.send(chunk)
                position = end

    def _from_file(self, part: FilePart, start: int, end: int) -> bytes:
        """What sendfile would send; hangs up if it can't."""
        self.world.count("sent from a file")
        try:
            chunk = part.pin.pread(part.offset + start, part.offset + end)
            if len(chunk) < end - start:
                raise OSError(errno.ENODATA, "the block file is shorter than its trailer says")
        except OSError as error:
            self.reader.broken(part.pin, error)
            raise ConnectionError("the file could not be sent") from error
        return chunk


def _head_of(segment: Segment) -> SegmentHead:
    return SegmentHead(segment.start, segment.length_bytes, segment.source, segment.checksums)
