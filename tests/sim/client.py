"""One client of the simulated cluster: the real read logic, driven on virtual time.

Rules
- The driver keeps the contract of cachesvc_client/effects.py, and receives with the receipt that
  the real lane uses: every byte passes Receipt before anybody believes it.
- A node is believed silent only if it is: pending frames keep a client waiting.
- Bytes that fail their checksum are excused only if the simulator has damaged a disk of that node,
  and never where the node was asked to verify; an answer against the protocol never is.

Story: `read` and `stat` are what an application calls; `drive` runs their generators; `_ask` talks
to a node over a Channel, `_from_origin` to the origin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from cachesvc_client.config import ClientConfig
from cachesvc_client.drive import run_awaiting
from cachesvc_client.effects import Ask, AskOrigin, Effect, Refresh, Reply, Steps, Target, Together
from cachesvc_client.receipt import Receipt, same_version
from cachesvc_client.router import Router
from cachesvc_client.script import Script
from cachesvc_client.target import Room, spans
from cachesvc_client.versions import VersionCache

from cachesvc.core.errors import (
    CacheError,
    CorruptAnswer,
    NodeUnavailable,
    ObjectChanged,
    ProtocolError,
)
from cachesvc.core.request import ReadRequest
from cachesvc.core.ring import MemberTable
from cachesvc.core.types import ObjectName, ObjectVersion, Source, clamp
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.v1 import cache_pb2
from tests.sim.channel import Channel, Item
from tests.sim.model import Range
from tests.sim.node import SimNode

if TYPE_CHECKING:
    from tests.sim.world import World

T = TypeVar("T")

CONNECT_S = 0.05
SILENCE_S = 0.3
REFRESH_S = 0.1
VNODES = 8


class SimClient:
    """See above. Several calls may run at a time."""

    def __init__(self, world: World, number: int, known: MemberTable) -> None:
        setup = world.setup
        self.name = f"client{number}"
        self._world = world
        self._refreshed_at = float("-inf")
        config = ClientConfig(
            ("sim:1",),
            restart_count=setup.restart_count,
            owner_tries=setup.owner_tries,
            ask_max_bytes=setup.ask_max_bytes,
            origin_part_bytes=setup.origin_part_bytes,
        )
        clock = world.loop.time
        self.router = Router(
            known,
            setup.geometry,
            VNODES,
            clock=clock,
            owner_tries=setup.owner_tries,
            eject_ms=100,
            eject_max_ms=400,
        )
        versions = VersionCache(setup.version_cache_count, clock)
        self._script = Script(self.router, versions, config, clock)

    async def read(
        self, name: ObjectName, ranges: Sequence[Range], pinned: ObjectVersion | None = None
    ) -> tuple[ObjectVersion, list[bytes]]:
        """The ranges, all of one version."""
        room = Room(spans(name, ranges))
        version = await self.drive(self._script.read(name, ranges, room, pinned))
        cut = [clamp(name, start, end, version.size_bytes) for start, end in ranges]
        return version, [room.result(one.start, one.end) for one in cut]

    async def stat(self, name: ObjectName, max_age_s: float | None = None) -> ObjectVersion:
        """The current version."""
        return await self.drive(self._script.stat(name, max_age_s))

    # -- the driver

    async def drive(self, steps: Steps[T]) -> T:
        """Run a generator to its end."""
        return await run_awaiting(steps, self._perform)

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Ask():
                return await self._ask(effect)
            case AskOrigin():
                return await self._from_origin(effect)
            case Together():
                return await self._together(effect.steps)
            case Refresh():
                return await self._refresh(effect)

    async def _together(self, steps: Sequence[Steps[Any]]) -> list[Any]:
        if self._world.rng.random() < 0.2:
            return [await self._outcome(one) for one in steps]
        return list(await asyncio.gather(*(self._outcome(one) for one in steps)))

    async def _outcome(self, steps: Steps[Any]) -> Any:
        try:
            return await self.drive(steps)
        except CacheError as error:
            return error

    async def _refresh(self, effect: Refresh) -> None:
        now = self._world.loop.time()
        if now - self._refreshed_at < REFRESH_S:
            return
        self._refreshed_at = now
        nodes = list(self._world.nodes.values())
        if effect.member is not None:
            nodes = [self._world.nodes[effect.member.node_id]]
        for node in nodes:
            await self._world.delay()
            if node.alive and node.light.is_set():
                self.router.adopt(node.table, self._world.setup.geometry, VNODES)
                return
        raise NodeUnavailable("no endpoint can be reached")

    # -- a node

    async def _ask(self, ask: Ask) -> Reply:
        node, request = self._world.nodes[ask.member.node_id], ask.request
        await self._connect(node)
        if isinstance(request, ReadRequest):
            raw = codec.pack_read(request, self.router.epoch)
        else:
            raw = codec.pack_stat(request)
        channel = node.accept(raw, ask.target is None)
        try:
            if isinstance(request, ReadRequest):
                assert ask.target is not None
                return await self._receive(node, channel, request, ask.target)
            header, _ = _header(await self._next(node, channel, None))
            head = codec.unpack_stat_answer(request.name, codec.parse(cache_pb2.StatAnswer, header))
            assert head.version is not None
            return Reply(head.version, head.fresh_for_s, epoch=head.epoch)
        except (CorruptAnswer, ProtocolError) as error:
            verified = isinstance(request, ReadRequest) and request.verify
            self._world.count(f"{type(error).__name__} at a client")
            if verified or not node.damaged or isinstance(error, ProtocolError):
                self._world.violate(f"{self.name}: {error!r} on {request}")
            raise
        finally:
            self._let_go(channel)

    async def _connect(self, node: SimNode) -> None:
        await self._world.delay()
        if not node.light.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    await node.light.wait()
        if not node.alive or not node.light.is_set():
            self._world.count("node not reached")
            raise NodeUnavailable(f"{node.node_id} cannot be reached")

    def _let_go(self, channel: Channel) -> None:
        """The node learns a little later that nobody listens any more."""
        channel.hang_up()
        if channel.task is not None and not channel.task.done():
            pause_s = self._world.rng.choice((0.0, 0.0, 0.002))
            self._world.loop.call_later(pause_s, channel.task.cancel)

    async def _receive(
        self, node: SimNode, channel: Channel, request: ReadRequest, target: Target
    ) -> Reply:
        page_bytes = self._world.setup.geometry.page_bytes
        receipt = Receipt(request, target, page_bytes, node.node_id)
        while True:
            header, body_bytes = _header(await self._next(node, channel, receipt))
            message = codec.parse(cache_pb2.ReadHeader, header)
            head = codec.unpack_read_head(request.name, message)
            rest = b""
            for segment, view in receipt.take(head, body_bytes):
                check, filled = receipt.check(segment, view), 0
                while filled < len(view):
                    if not rest:
                        item = await self._next(node, channel, None)
                        assert isinstance(item, bytes)
                        rest = item
                    count = min(len(rest), len(view) - filled)
                    view[filled : filled + count] = rest[:count]
                    filled, rest = filled + count, rest[count:]
                    check.landed(filled)
                receipt.settle(segment, right=check.right)
            if head.last:
                return receipt.reply()

    async def _next(self, node: SimNode, channel: Channel, receipt: Receipt | None) -> Item:
        """The next item from a node, with patience as long as the node works for it."""
        while True:
            if channel.items and node.light.is_set():
                return channel.take()
            try:
                async with asyncio.timeout(SILENCE_S):
                    await channel.ready()
                    await node.light.wait()
            except ConnectionError as error:
                self._world.count("hung up")
                raise NodeUnavailable(f"{node.node_id} hung up") from error
            except TimeoutError as error:
                lit = self._world.loop.time() - node.dark_until > SILENCE_S
                if not channel.patient or not node.light.is_set():
                    if lit and node.light.is_set():
                        self._world.violate(f"{node.node_id} is silent without a reason")
                    self._world.count("silence")
                    raise NodeUnavailable(f"{node.node_id} is silent") from error
                if receipt is not None:
                    receipt.take(ReadHead(pending=True), 0)

    # -- the origin

    async def _from_origin(self, ask: AskOrigin) -> Reply:
        self._world.count("asked the origin")
        await self._world.delay()
        origin, version, target = self._world.origin, ask.version, ask.target
        if target is None:
            return Reply(await origin.head(ask.name))
        if version is not None and version.cacheable and ask.end is not None:
            wanted = clamp(ask.name, ask.start, ask.end, version.size_bytes)
            if wanted.length_bytes:
                view = target.view(wanted.start, wanted.length_bytes)
                await origin.fetch(version, wanted, _Direct(view))
            return Reply(version, sources={Source.BYPASS: wanted.length_bytes})
        end = None if ask.end == codec.END_OF_OBJECT else ask.end
        async with origin.stream(ask.name, ask.start, end) as stream:
            if version is None:
                target.begin(stream.version)
            elif not same_version(version, stream.version):
                raise ObjectChanged(f"{ask.name}: version {version.etag} is gone")
            position = stream.wanted.start
            async for chunk in stream.chunks:
                target.view(position, len(chunk))[:] = chunk
                position += len(chunk)
        length_bytes = position - stream.wanted.start
        sources = {Source.BYPASS: length_bytes} if length_bytes else {}
        return Reply(stream.version, sources=sources)


class _Direct:
    """The sink of a client's own GET."""

    cancelled = False

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def landed(self, count_bytes: int) -> None:
        assert count_bytes <= len(self.view)

    def broke_off(self) -> None:
        pass

    def from_peer(self) -> None:
        raise AssertionError("the object store is no peer")


def _header(item: Item) -> tuple[bytes, int]:
    assert isinstance(item, tuple), "bytes where a header was due"
    return item
