"""An origin, a ring of real nodes, and real sidecars in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachesvc_client import CacheClient

from cachesvc.devorigin import DevOrigin
from cachesvc.devorigin.ports import free_ports
from tests.integration.cluster import Cluster, NodeProcess, SidecarProcess
from tests.support import until

BUCKET = "bucket"
LONG = ("--revalidate", "1h")


def uri(key: str) -> str:
    return f"s3://{BUCKET}/{key}"


@dataclass
class Place:
    """doors: the sidecars' S3 gateways."""

    origin: DevOrigin
    ring: Cluster
    sidecars: list[SidecarProcess]
    doors: list[str]

    def put(self, key: str, data: bytes) -> None:
        self.origin.put(BUCKET, key, data)

    def client(self, number: int = 0, **settings: Any) -> CacheClient:
        """A client of the Unix lane of a sidecar; of nothing else, not even the origin."""
        endpoint = f"unix://{socket_of(self.sidecars[number])}"
        nowhere = {"endpoint_url": "http://127.0.0.1:1", "anonymous": True}
        return CacheClient(endpoint, origin=nowhere, **settings)

    def asked(self) -> list[str]:
        """What the origin was asked for, in S3's words."""
        return [one.operation for one in self.origin.requests]


def spoil(node: NodeProcess, content: bytes, offset: int) -> None:
    """Change the byte at `offset` of the block with this content, once its fill is over: until then
    it is answered from memory, whatever the file says.
    """

    def spoiled() -> bool:
        for path in (node.data / "blocks").rglob("*.block"):
            with path.open("r+b", buffering=0) as file:
                if file.read(len(content)) == content:
                    file.seek(offset)
                    file.write(bytes([content[offset] ^ 1]))
                    return True
        return False

    fills_over(node)
    until(spoiled, "the block is stored")


def fills_over(node: NodeProcess) -> None:
    """Wait until no fill is under way: a reader has his bytes before they are counted."""
    until(lambda: node.metric("flights") == 0, "the fills are over")


def socket_of(sidecar: SidecarProcess) -> Path:
    return sidecar.data.parent / f"{sidecar.node_id}.sock"


@contextmanager
def sidecars(
    work: Path,
    node_count: int = 2,
    sidecar_count: int = 1,
    node_options: tuple[str, ...] = LONG,
    options: tuple[str, ...] = LONG,
) -> Iterator[Place]:
    """All of them ready."""
    (work / "origin").mkdir()
    with ExitStack() as exits:
        origin = exits.enter_context(DevOrigin(work / "origin"))
        ring = Cluster(work, origin.url, node_count, ("--capacity", "256MiB", *node_options))
        exits.enter_context(ring)
        made, doors = [], []
        for number in range(sidecar_count):
            data = work / f"sidecar-{number}"
            data.mkdir()
            lane, grpc, admin, s3 = (f"127.0.0.1:{port}" for port in free_ports(4))
            sidecar = SidecarProcess(
                f"sidecar-{number}", data, lane, grpc, admin, ring.endpoint, origin.url
            )
            door = ("--unix", str(socket_of(sidecar)), "--s3", s3)
            sidecar.options = ("--capacity", "64MiB", *door, *options)
            made.append(sidecar)
            doors.append(f"http://{s3}")
        for sidecar in made:
            exits.callback(sidecar.end)
            sidecar.start()
        for sidecar in made:
            sidecar.ready()
        yield Place(origin, ring, made, doors)
