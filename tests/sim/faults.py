"""What goes wrong: the director that strikes at random, and the hooks through which it does.

Rules: a fault has an end, and `heal` ends them all; a refusal that a client itself met at the
origin is written into the model, for only those excuse it. What is damaged on a disk is marked so.

Story: `strike` is called every now and then and picks one of the setup's troubles. Lasting ones set
a time until which a hook of origin or disk does its worst.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from cachesvc.core.errors import OriginError
from cachesvc.core.format import TRAILER_BYTES
from cachesvc.core.ring import MemberTable
from cachesvc.core.types import ByteRange, ObjectName
from cachesvc.origin.memory import Fault
from tests.sim.disks import Blob, SimDisk
from tests.sim.loop import OWNER
from tests.sim.node import SimNode
from tests.sim.setup import new_size
from tests.sim.world import World

_ERRNOS = {
    "eio": (errno.EIO, ("pread", "pwrite", "open", "create", "unlink", "scan")),
    "emfile": (errno.EMFILE, ("open", "create")),
    "enospc": (errno.ENOSPC, ("create", "pwrite")),
}


class Faults:
    """The director of one history."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._healed = False
        self._slow_until = self._refuse_until = self._cut_until = 0.0
        self._victims: tuple[bool, ...] = (True, False)  # by whether a node asks
        self._bad_disks: dict[str, tuple[str, float, float]] = {}  # what, how often, until when
        self._races = world.setup.troubles.get("race", 0) / 40
        world.before = self._before

    async def direct(self) -> None:
        """Strike until cancelled."""
        setup = self._world.setup
        kinds = list(setup.troubles)
        while kinds:
            await asyncio.sleep(self._rng.expovariate(1 / setup.trouble_every_s))
            kind = self._rng.choices(kinds, [setup.troubles[one] for one in kinds])[0]
            self.strike(kind)
            self._world.check()

    def strike(self, kind: str) -> None:
        """One trouble."""
        strikes: dict[str, Callable[[], None]] = {
            "overwrite": self._overwrite,
            "delete": self._delete,
            "crash": self._crash,
            "dark": self._dark,
            "slow": self._slow,
            "refuse": self._refuse,
            "cut": self._cut,
            "disk": lambda: self._break_disk(self._rng.choice(("eio", "torn"))),
            "short": lambda: self._break_disk("emfile"),
            "full": lambda: self._break_disk(self._rng.choice(("enospc", "limit"))),
            "flip": self._flip,
            "swap": self._swap,
            "truncate": self._truncate,
            "members": self._members,
            "race": lambda: None,
        }
        strikes[kind]()

    def heal(self) -> None:
        """End every fault; nodes that are down come back."""
        self._healed = True
        world = self._world
        world.trace("healed")
        world.tell(MemberTable(node.member for node in world.nodes.values()))
        for node in world.nodes.values():
            for disk in node.disks:
                disk.limit_bytes = 1 << 62
            self._light(node)
            failed = node.alive and any(device.failure for device in node.store.devices)
            if failed and self._rng.random() < 0.5:
                node.crash()
            self._boot(node)

    def _for(self, longest_s: float = 0.3) -> float:
        return self._rng.choice((0.01, 0.05, longest_s)) * self._rng.random()

    # -- the origin

    def _name(self) -> ObjectName:
        return self._rng.choice(self._world.names)

    def _overwrite(self, name: ObjectName | None = None) -> None:
        name = name or self._name()
        old = self._world.model.current(name)
        self._world.put(name, new_size(self._rng, self._world.setup, len(old.data)))

    def _delete(self) -> None:
        name = self._name()
        if self._world.model.current(name).version is None:
            self._overwrite(name)
            return
        self._world.delete(name)
        if self._rng.random() < 0.7:
            self._world.loop.call_later(self._for(), self._overwrite, name)

    def _slow(self) -> None:
        self._slow_until = self._world.loop.time() + self._for(0.5)
        self._world.trace("slow", self._slow_until)

    def _refuse(self) -> None:
        self._refuse_until = self._world.loop.time() + self._for()
        self._victims = self._rng.choice(((True,), (False,), (True, False), (True, False)))
        self._world.trace("refuse", self._refuse_until, self._victims)

    def _cut(self) -> None:
        self._cut_until = self._world.loop.time() + self._for()
        self._victims = self._rng.choice(((True,), (True, False)))
        self._world.trace("cut", self._cut_until, self._victims)

    async def _before(self, op: str, name: ObjectName, wanted: ByteRange | None) -> Fault | None:
        """The hook of the origin."""
        setup, rng, loop = self._world.setup, self._rng, self._world.loop
        if setup.latency_s:
            await asyncio.sleep(setup.latency_s * rng.random())
        if self._healed:
            return None
        if loop.time() < self._slow_until:
            await asyncio.sleep(rng.random() * 0.5)
        self._race(name)
        by_node = OWNER.get() is not None
        if by_node not in self._victims or rng.random() < 0.2:
            return None
        if loop.time() < self._refuse_until:
            self._excuse(name, by_node)
            raise OriginError(f"{name}: the origin answers 503")
        if loop.time() < self._cut_until and op in ("get", "stream"):
            self._excuse(name, by_node)
            return Fault(rng.randrange(wanted.length_bytes + 1 if wanted else 1000))
        return None

    def _excuse(self, name: ObjectName, by_node: bool) -> None:
        self._world.count("origin failed")
        if not by_node:
            self._world.model.refusals.append((self._world.loop.time(), name))

    def _race(self, name: ObjectName) -> None:
        """An overwrite just between a question and its answer, or while the bytes come."""
        if self._rng.random() < self._races:
            self._overwrite(name)
        if self._rng.random() < self._races:
            self._world.loop.call_later(self._rng.random() * 0.02, self._overwrite, name)

    # -- nodes and the network

    def _node(self) -> SimNode:
        return self._rng.choice(list(self._world.nodes.values()))

    def _crash(self) -> None:
        node = self._node()
        if node.alive:
            self._world.trace("crash", node.node_id)
            self._world.count("crash")
            node.crash()
            self._world.loop.call_later(self._for(), self._boot, node)

    def _boot(self, node: SimNode) -> None:
        if not node.alive:
            self._world.trace("boot", node.node_id)
            node.boot()
            for disk in node.disks:
                self._hook(disk)

    def _dark(self) -> None:
        node = self._node()
        self._world.trace("dark", node.node_id)
        node.light.clear()
        self._world.loop.call_later(self._for(1.0), self._light, node)

    def _light(self, node: SimNode) -> None:
        if not node.light.is_set():
            self._world.trace("light", node.node_id)
            node.dark_until = self._world.loop.time()
            node.light.set()

    def _members(self) -> None:
        members = [node.member for node in self._world.nodes.values()]
        kept = [member for member in members if self._rng.random() < 0.7]
        table = MemberTable(kept or members)
        self._world.trace("members", *(member.node_id for member in table.members))
        for node in self._world.nodes.values():
            self._world.loop.call_later(self._for(), setattr, node, "table", table)

    # -- disks

    def hook_all(self) -> None:
        """Get hold of all disks."""
        for node in self._world.nodes.values():
            for disk in node.disks:
                self._hook(disk)

    def _hook(self, disk: SimDisk) -> None:
        disk.trouble = lambda op: self._trouble(disk, op)
        disk.tear = lambda length: self._tear(disk, length)

    def _break_disk(self, what: str) -> None:
        node = self._node()
        disk = self._rng.choice(node.disks)
        self._world.trace("disk", disk.name, what)
        if what == "limit":
            disk.limit_bytes = int(disk.taken_bytes() + self._rng.choice((0, 4096, 9000)))
            self._world.loop.call_later(self._for(), setattr, disk, "limit_bytes", 1 << 62)
            return
        node.damaged |= what == "torn"
        until = self._world.loop.time() + self._for(1.0) + 0.03
        share = self._rng.choice((0.1, 0.3, 1.0 if what != "emfile" else 0.5))
        self._bad_disks[disk.name] = what, share, until

    def _ill(self, disk: SimDisk) -> str:
        what, share, until = self._bad_disks.get(disk.name, ("", 0.0, 0.0))
        if self._healed or self._world.loop.time() >= until or self._rng.random() >= share:
            return ""
        return what

    def _trouble(self, disk: SimDisk, op: str) -> OSError | None:
        number, ops = _ERRNOS.get(self._ill(disk), (0, ()))
        if op not in ops:
            return None
        self._world.trace("fault", disk.name, op, number)
        self._world.count(f"disk {errno.errorcode[number]}")
        return OSError(number, "a fault of the simulator")

    def _tear(self, disk: SimDisk, length_bytes: int) -> tuple[int, OSError] | None:
        if self._ill(disk) != "torn":
            return None
        self._world.trace("torn", disk.name)
        self._world.count("torn write")
        number = self._rng.choice((errno.EIO, errno.ENOSPC))
        return self._rng.randrange(length_bytes), OSError(number, "torn by the simulator")

    def _blob(self) -> tuple[SimNode, Blob] | None:
        """Some file of some disk."""
        node = self._node()
        blobs = [blob for disk in node.disks for _, blob in disk.blobs() if len(blob)]
        return (node, self._rng.choice(blobs)) if blobs else None

    def _spoil(self, node: SimNode, blob: Blob, how: str) -> None:
        node.damaged = True
        blob.damaged = True
        self._world.trace("spoil", node.node_id, how)
        self._world.count(f"spoiled: {how}")

    def _flip(self) -> None:
        found = self._blob()
        if found is None:
            return
        node, blob = found
        in_data = self._rng.random() < 0.7 and len(blob) > TRAILER_BYTES
        data_bytes = min(self._world.setup.geometry.block_bytes, len(blob))
        if in_data and self._rng.random() < 0.5 and blob.trailer is not None:
            data_bytes = min(data_bytes, blob.trailer.block.length_bytes)
        start, end = (0, data_bytes) if in_data else (max(0, len(blob) - TRAILER_BYTES), len(blob))
        blob[self._rng.randrange(start, end)] ^= 1 << self._rng.randrange(8)
        self._spoil(node, blob, "data" if in_data else "trailer")

    def _swap(self) -> None:
        one, other = self._blob(), self._blob()
        if one is None or other is None or one[1] is other[1]:
            return
        one[1][:], other[1][:] = bytes(other[1]), bytes(one[1])
        self._spoil(*one, "swapped")
        self._spoil(*other, "swapped")

    def _truncate(self) -> None:
        found = self._blob()
        if found is None:
            return
        node, blob = found
        keep = self._rng.choice((0, 4096, len(blob) - 1, self._rng.randrange(len(blob))))
        del blob[keep:]
        self._spoil(node, blob, "truncated")
