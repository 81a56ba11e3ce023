"""A gateway within the test's process, over a real S3 endpoint and a real directory.

Story: the node's event loop runs in a thread; tests ask over real sockets with http.client, which
mends nothing. Closing it proves that no pin, flight, buffer or descriptor is left.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cachesvc.coalescer import Coalescer
from cachesvc.core.blocks import BlockRef
from cachesvc.core.ring import Member
from cachesvc.core.types import Geometry, ObjectName
from cachesvc.disk.nvme import NvmeDisk
from cachesvc.gateway.assembly import GatewaySettings, NodeParts, open_gateway
from cachesvc.gateway.fields import FieldTable
from cachesvc.gateway.server import Gateway
from cachesvc.membership.cluster import Cluster
from cachesvc.metrics import Metrics
from cachesvc.origin.s3 import S3Origin
from cachesvc.origin.s3_client import S3Settings
from cachesvc.reader import Reader
from cachesvc.store import Store
from cachesvc.versions import Versions
from tests.integration.inprocess import LoopThread, open_below
from tests.support import blocks_of, until

GEOMETRY = Geometry(
    block_bytes=1 << 20, page_bytes=16 << 10, extent_min_bytes=128 << 10, extent_max_bytes=1 << 20
)
Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Gate:
    """See the head of this file."""

    url: str
    runner: LoopThread
    directory: Path
    metrics: Metrics
    store: Store
    coalescer: Coalescer
    reader: Reader
    gateway: Gateway
    fields: FieldTable

    def ask(
        self,
        target: str = "/bucket/key",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Reply:
        return ask(self.url, target, method, headers, body)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        return parts.hostname, parts.port or 0

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def count(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"cachesvc_{metric}", labels) or 0.0

    def blocks(self, key: str = "key") -> list[BlockRef]:
        checked = self.reader.versions.peek(ObjectName("bucket", key), float("inf"))
        assert checked is not None
        assert checked.version is not None
        return blocks_of(checked.version, GEOMETRY)

    def path_of(self, block: BlockRef) -> Path:
        return self.directory / "blocks" / block.id.hex()[:2] / f"{block.id.hex()}.block"

    def quiet(self) -> bool:
        held = self.store.open_blocks.pin_count
        doomed = sum(device.doomed_bytes for device in self.store.devices)
        return not (held or doomed or self.coalescer.flight_count or self.coalescer.buffer_bytes)


def ask(
    url: str,
    target: str = "/bucket/key",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: Any = None,
) -> Reply:
    """One request as it is given, and the answer; names of header fields in lower case."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, target, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, response.read()
    finally:
        connection.close()


@contextmanager
def gateway_over(
    endpoint_url: str,
    directory: Path,
    *,
    revalidate_s: float = 3600.0,
    settings: GatewaySettings | None = None,
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> Iterator[Gate]:
    runner = LoopThread(new_loop)
    disk = NvmeDisk(directory)
    metrics = Metrics()
    store = Store([disk], 1 << 30, metrics)
    list(store.recover())
    exits = AsyncExitStack()

    async def begin() -> Gate:
        fields = FieldTable()
        origin = S3Origin(S3Settings(endpoint_url=endpoint_url), metrics, heard=fields.hear)
        exits.push_async_callback(origin.close)
        hop = runner.loop.call_soon_threadsafe
        coalescer = Coalescer(origin, store, metrics, hop, write_bytes=GEOMETRY.extent_min_bytes)
        exits.push_async_callback(coalescer.close)
        versions = Versions(origin, revalidate_s)
        reader = Reader(origin, store, coalescer, versions, metrics, GEOMETRY)
        listener = socket.create_server(("127.0.0.1", 0))
        me = Member("node-1", "127.0.0.1:1", "127.0.0.1:1", 1)
        cluster = Cluster(me, GEOMETRY)
        parts = NodeParts(cluster, reader, store, origin, fields, origin.access, metrics)
        gateway = await open_gateway(parts, settings or GatewaySettings(), listener, exits)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        return Gate(url, runner, directory, metrics, store, coalescer, reader, gateway, fields)

    gate = runner.run(begin)
    try:
        yield gate
        until(gate.quiet, "nothing is pinned, flying or buffered any more")
    finally:
        runner.run(exits.aclose)
        runner.close()
        store.close()
        disk.close()
    assert runner.complaints == []
    assert open_below(directory) == []
