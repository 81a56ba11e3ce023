"""A node within the test's process, over a MemoryOrigin and a real directory, and a raw client.

Story: the node's event loop runs in a thread, as in a node of its own; the test's thread speaks to
it through real sockets. Closing it proves that no pin, buffer, flight or descriptor is left.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

from cachesvc.coalescer import Coalescer
from cachesvc.core.blocks import BlockRef, cuts
from cachesvc.core.errors import CacheError
from cachesvc.core.format import CHECKSUM_BYTES, checksum
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.ring import Member
from cachesvc.core.types import ByteRange, Geometry, ObjectName, ObjectVersion, Source
from cachesvc.devorigin.ports import free_ports
from cachesvc.disk.nvme import NvmeDisk
from cachesvc.lane import LaneServer
from cachesvc.membership.cluster import Cluster
from cachesvc.metrics import Metrics
from cachesvc.origin.memory import Fault, MemoryOrigin
from cachesvc.reader import Reader
from cachesvc.service import GrpcService
from cachesvc.store import Store
from cachesvc.unix import open_door
from cachesvc.versions import Versions
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import PREFIX_BYTES, PROTOCOL_VERSION, Kind, encode, parse_prefix
from cachesvc.wire.v1 import cache_pb2, cluster_pb2
from tests.support import NAME, PATIENCE_S, blocks_of, until

GEOMETRY = Geometry(
    block_bytes=1 << 20, page_bytes=16 << 10, extent_min_bytes=128 << 10, extent_max_bytes=1 << 20
)
T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(
        self, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    ) -> None:
        self.loop = new_loop()
        self.complaints: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(str(context)))
        self._thread = Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(PATIENCE_S):
                return await work()

        return asyncio.run_coroutine_threadsafe(limited(), self.loop).result(2 * PATIENCE_S)

    def close(self) -> None:
        async def last() -> None:
            await self.loop.shutdown_default_executor()

        self.run(last)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class HeldOrigin(MemoryOrigin):
    """GETs and HEADs can be held back until they are let go."""

    def __init__(self, chunk_bytes: int) -> None:
        super().__init__(chunk_bytes)
        self.held: asyncio.Event | None = None
        self.before = lambda op, name, wanted: self._wait(op, wanted)
        self.streams_open = 0

    async def _wait(self, op: str, wanted: ByteRange | None) -> Fault | None:
        if self.held is not None:
            await self.held.wait()
        return None

    @contextmanager
    def holding(self, loop: LoopThread) -> Iterator[Callable[[], None]]:
        """While it lasts the origin hangs; the callable lets it go on."""
        self.held = held = asyncio.Event()

        def let_go() -> None:
            self.held = None
            loop.loop.call_soon_threadsafe(held.set)

        try:
            yield let_go
        finally:
            let_go()


@dataclass
class InProcessNode:
    """See the head of this file."""

    runner: LoopThread
    origin: HeldOrigin
    directory: Path
    metrics: Metrics
    store: Store
    coalescer: Coalescer
    reader: Reader
    cluster: Cluster
    lane: LaneServer
    service: GrpcService
    lane_port: int
    grpc_port: int

    def put(self, data: bytes, name: ObjectName = NAME, etag: str | None = None) -> ObjectVersion:
        async def work() -> ObjectVersion:
            return self.origin.put(name, data, etag)

        return self.runner.run(work)

    def blocks(self, version: ObjectVersion) -> list[BlockRef]:
        return blocks_of(version, self.reader.geometry)

    def path_of(self, block: BlockRef) -> Path:
        return self.directory / "blocks" / block.id.hex()[:2] / f"{block.id.hex()}.block"

    def count(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"cachesvc_{metric}", labels) or 0.0

    @property
    def pinned_count(self) -> int:
        """Blocks that somebody holds."""
        held = self.store.open_blocks.pin_count
        return held + sum(device.doomed_bytes for device in self.store.devices)

    def quiet(self) -> bool:
        return (
            self.pinned_count == 0
            and self.coalescer.flight_count == 0
            and self.coalescer.buffer_bytes == 0
            and self.origin.active_count == 0
            and not self.lane._tasks
        )


@contextmanager
def running(
    directory: Path,
    *,
    token: str = "",
    capacity_bytes: int = 1 << 30,
    stall_s: float = 60.0,
    request_s: float = 60.0,
    revalidate_s: float = 3600.0,
    unix: Path | None = None,
    geometry: Geometry = GEOMETRY,
) -> Iterator[InProcessNode]:
    exits = ExitStack()
    door = None if unix is None else exits.enter_context(open_door(unix))
    runner = LoopThread()
    disk = NvmeDisk(directory)
    metrics = Metrics()
    store = Store([disk], capacity_bytes, metrics)
    list(store.recover())

    async def begin() -> InProcessNode:
        origin = HeldOrigin(chunk_bytes=64 << 10)
        hop = runner.loop.call_soon_threadsafe
        coalescer = Coalescer(origin, store, metrics, hop, write_bytes=geometry.extent_min_bytes)
        versions = Versions(origin, revalidate_s)
        reader = Reader(origin, store, coalescer, versions, metrics, geometry)
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        (grpc_port,) = free_ports(1)
        me = Member("node-1", f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", 1)
        cluster = Cluster(me, geometry, token)
        lane = LaneServer(reader, cluster, metrics, threads=2, stall_s=stall_s)
        lane.start(listener, door)
        service = GrpcService(reader, cluster, stall_s=stall_s, request_s=request_s)
        service.start(f"127.0.0.1:{grpc_port}")
        service.serving(True)
        return InProcessNode(
            runner, origin, directory, metrics, store, coalescer, reader, cluster, lane, service,
            port, grpc_port,
        )  # fmt: skip

    node = runner.run(begin)
    try:
        yield node
        until(node.quiet, "nothing is pinned, flying or buffered any more")
    finally:

        async def end() -> None:
            await node.service.stop(0)
            await node.lane.stop()
            await node.coalescer.close()
            await node.origin.close()

        runner.run(end)
        runner.close()
        store.close()
        disk.close()
        exits.close()
    assert runner.complaints == []
    assert open_below(directory) == []


def open_below(directory: Path) -> list[str]:
    """The files in a directory, removed or not, that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(os.readlink(link))
    return [name for name in found if name.startswith(f"{directory}/")]


class HungUp(Exception):
    """The node closed the connection."""


class RawClient:
    """One connection of the TCP lane, byte by byte."""

    def __init__(self, node: InProcessNode, receive_bytes: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(("127.0.0.1", node.lane_port))
        self.pending_count = 0

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def hello(
        self, token: str = "", protocol_version: int = PROTOCOL_VERSION
    ) -> cluster_pb2.Welcome:
        message = cluster_pb2.HelloRequest(protocol_version=protocol_version, token=token)
        self.send(Kind.HELLO, message.SerializeToString())
        kind, header, _ = self.frame()
        assert kind is Kind.WELCOME
        return codec.parse(cluster_pb2.Welcome, header)

    def greeted(self) -> RawClient:
        codec.raise_error(self.hello().error)
        return self

    def send(self, kind: Kind, header: bytes, body_bytes: int = 0) -> None:
        self.sock.sendall(encode(kind, header, body_bytes))

    def receive(self, count_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < count_bytes:
            try:
                piece = self.sock.recv(count_bytes - len(data))
            except ConnectionError as error:
                raise HungUp from error
            if not piece:
                raise HungUp
            data += piece
        return bytes(data)

    def frame(self) -> tuple[Kind, bytes, bytes]:
        prefix = parse_prefix(self.receive(PREFIX_BYTES))
        header = self.receive(prefix.header_bytes)
        return prefix.kind, header, self.receive(prefix.body_bytes)

    def ask(self, request: ReadRequest) -> None:
        self.send(Kind.READ, codec.pack_read(request, 0))

    def head(self, name: ObjectName = NAME) -> tuple[ReadHead, bytes]:
        """The next frame of an answer that is not `pending`. Raises the error that it carries."""
        while True:
            kind, header, body = self.frame()
            assert kind is Kind.READ_ANSWER
            head = codec.unpack_read_head(name, codec.parse(cache_pb2.ReadHeader, header))
            assert head.body_bytes == len(body)
            if not head.pending:
                return head, body
            self.pending_count += 1

    def answer(self, name: ObjectName = NAME) -> tuple[ObjectVersion, bytes, set[Source]]:
        """A whole answer, its checksums verified."""
        version, sources, pieces = None, set(), []
        while True:
            head, body = self.head(name)
            if version is None:
                version = head.version
                assert version is not None
            position = 0
            for segment in head.segments:
                sources.add(segment.source)
                data = body[position : position + segment.length_bytes]
                verify(segment.start, data, segment.checksums, segment.source)
                pieces.append(data)
                position += segment.length_bytes
            if head.last:
                return version, b"".join(pieces), sources

    def read(self, *ranges: tuple[int, int | None], **options: bool) -> bytes:
        self.ask(ReadRequest(NAME, ranges or ((0, None),), **options))  # type: ignore[arg-type]
        return self.answer()[1]

    def stat(self, name: ObjectName = NAME) -> ReadHead:
        self.send(Kind.STAT, codec.pack_stat(StatRequest(name)))
        kind, header, _ = self.frame()
        assert kind is Kind.STAT_ANSWER
        return codec.unpack_stat_answer(name, codec.parse(cache_pb2.StatAnswer, header))

    def refusal(self) -> str:
        """The error that the node says before it hangs up."""
        kind, header, _ = self.frame()
        try:
            if kind is Kind.WELCOME:
                codec.raise_error(codec.parse(cluster_pb2.Welcome, header).error)
            else:
                codec.unpack_read_head(NAME, codec.parse(cache_pb2.ReadHeader, header))
        except CacheError as error:
            self.hung_up()
            return f"{type(error).__name__}: {error}"
        raise AssertionError(f"a {kind.name} frame without an error")

    def hung_up(self) -> None:
        """The node closes the connection without another byte."""
        try:
            assert self.sock.recv(1) == b""
        except ConnectionError:
            return


def verify(start: int, data: bytes, checksums: bytes, source: Source) -> None:
    """Raises AssertionError unless the bytes are what their checksums say."""
    if source is Source.BYPASS:
        return
    pieces = list(cuts(start, start + len(data), GEOMETRY.page_bytes))
    assert len(checksums) == CHECKSUM_BYTES * len(pieces)
    for number, (first, beyond) in enumerate(pieces):
        expected = checksums[number * CHECKSUM_BYTES : (number + 1) * CHECKSUM_BYTES]
        assert checksum(data[first - start : beyond - start]) == expected


class Latch:
    """Something that must happen once."""

    def __init__(self) -> None:
        self._event = Event()

    def set(self) -> None:
        self._event.set()

    def wait(self) -> None:
        assert self._event.wait(PATIENCE_S)
