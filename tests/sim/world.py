"""The simulated cluster as a whole: origin, nodes, clients, and the log of what happened.

Rules: every decision comes from the one `rng`; the trace holds plain values, so that its digest is
the same in every process; a violation is kept with its moment and never raised where it is found,
because the code under test might swallow it.

Story: a history makes one World, lets clients call and faults strike, and asks it in the end for
`violations`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any

from cachesvc.core.format import Trailer
from cachesvc.core.ring import Member, MemberTable
from cachesvc.core.types import ByteRange, ObjectName
from cachesvc.origin.memory import MemoryOrigin
from tests.sim.client import SimClient
from tests.sim.disks import proven_pages
from tests.sim.loop import VirtualLoop
from tests.sim.model import Model
from tests.sim.node import SimNode
from tests.sim.setup import Setup

MOST_VIOLATIONS = 5
Before = Callable[[str, ObjectName, ByteRange | None], Any]


class World:
    """See above."""

    def __init__(self, rng: Random, setup: Setup, loop: VirtualLoop) -> None:
        self.rng = rng
        self.setup = setup
        self.loop = loop
        self.log: list[tuple[float, str, tuple[Any, ...]]] = []
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.model = Model(setup.revalidate_s)
        self.origin = MemoryOrigin(setup.chunk_bytes, setup.chunk_pause_s, self._before)
        self.before: Before = lambda _op, _name, _wanted: None
        self.names = [ObjectName("bucket", f"key{i}") for i in range(len(setup.object_sizes))]
        self._etags = dict(zip(self.names, setup.weak_etags, strict=True))
        for name, size_bytes in zip(self.names, setup.object_sizes, strict=True):
            self.put(name, size_bytes)
        members = [Member(f"node{i}", f"10.0.0.{i}:7071") for i in range(setup.node_count)]
        self.nodes = {member.node_id: SimNode(self, member) for member in members}
        self.tell(MemberTable(members))
        known = {"all": members, "one": members[:1], "none": []}[setup.known_nodes]
        self.clients = [
            SimClient(self, number, MemberTable(known)) for number in range(setup.client_count)
        ]

    # -- the log

    def trace(self, what: str, *values: Any) -> None:
        self.log.append((self.loop.time(), what, values))

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def violate(self, text: str) -> None:
        if len(self.violations) < MOST_VIOLATIONS:
            self.trace("VIOLATION", text)
            self.violations.append(f"at {self.loop.time():.4f}: {text}")

    def digest(self) -> str:
        """A fingerprint of everything that happened."""
        hasher = blake2b(digest_size=16)
        for line in self.lines():
            hasher.update(line.encode())
        return hasher.hexdigest()

    def lines(self) -> list[str]:
        """The trace, a line for each event."""
        return [
            f"{when:10.4f} {what:10} {' '.join(map(str, values))}"
            for when, what, values in self.log
        ]

    # -- the origin

    def put(self, name: ObjectName, size_bytes: int) -> None:
        """Overwrite an object with new bytes."""
        data = self.rng.randbytes(size_bytes)
        version = self.origin.put(name, data, self._etags[name])
        self.model.became(name, version, data, self.loop.time())
        self.trace("put", name, version.etag, size_bytes)

    def delete(self, name: ObjectName) -> None:
        self.origin.delete(name)
        self.model.became(name, None, b"", self.loop.time())
        self.trace("delete", name)

    def _before(self, op: str, name: ObjectName, wanted: ByteRange | None) -> Any:
        return self.before(op, name, wanted)

    # -- the network

    async def delay(self) -> None:
        """What a message takes to arrive."""
        await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.0, 0.0005, 0.003)))

    def tell(self, table: MemberTable) -> None:
        """All nodes learn a member table."""
        for node in self.nodes.values():
            node.table = table

    # -- checks

    def check(self) -> None:
        """What must hold between any two steps."""
        for node in self.nodes.values():
            node.check()

    def check_disks(self) -> None:
        """Whatever a file proves is what the model has; and a file in use has a trailer."""
        for node in self.nodes.values():
            for disk, device in zip(node.disks, node.store.devices, strict=True):
                for block_id, blob in disk.blobs():
                    proven = proven_pages(blob)
                    if proven is not None:
                        self._check_pages(*proven)
                    elif not blob.damaged and not device.failure:
                        self.violate(f"{disk.name}: file {block_id.hex()} has no trailer")

    def _check_pages(self, trailer: Trailer, pages: list[tuple[int, bytes]]) -> None:
        block = trailer.block
        era = self.model.era_of(block.version)
        for page, data in pages:
            start = block.start + page * block.geometry.page_bytes
            if era is None or era.data[start : start + len(data)] != data:
                self.violate(f"{block}: page {page} is vouched for and wrong")
