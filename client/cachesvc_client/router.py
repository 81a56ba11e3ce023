"""Which node to ask for a block: the ring's owners, less those that are down. Pure: no I/O.

Rules: a node that failed is ejected for eject_ms, and for twice as long each time that it is found
down again, but for no less than twice what finding out took: of two silent nodes, one is still
ejected when the other has been tried. When its time is over, one single request tries it (`admit`),
while all others go on without it. Everything may be called from any thread.

Story: `candidates` names the nodes for a block, best first. Before a request, `admit` says whether
a node may be asked now; after it, `failed` or `succeeded` tells how it went. When there are none,
the caller reads from the origin, and only if that fails as well asks those that are `ejected`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from cachesvc.core.ring import DEFAULT_VNODES_PER_WEIGHT, Member, MemberTable, Ring
from cachesvc.core.types import Geometry, ObjectName


@dataclass(slots=True)
class _Ejection:
    """A node that is not asked before `until_s`; `probed`: one request is trying it now."""

    address: str
    until_s: float
    pause_s: float
    why: str
    probed: bool = False


class Router:
    """The owners of every block, as one client sees them. `clock` gives seconds, monotonic."""

    def __init__(
        self,
        table: MemberTable,
        geometry: Geometry,
        vnodes_per_weight: int = DEFAULT_VNODES_PER_WEIGHT,
        *,
        clock: Callable[[], float],
        owner_tries: int,
        eject_ms: int,
        eject_max_ms: int,
    ) -> None:
        self.geometry = geometry
        self.owner_tries = owner_tries
        self._ring = Ring(table, vnodes_per_weight)
        self._clock = clock
        self._eject_s = eject_ms / 1000
        self._eject_max_s = eject_max_ms / 1000
        self._ejections: dict[str, _Ejection] = {}
        self._lock = Lock()

    @property
    def table(self) -> MemberTable:
        return self._ring.table

    @property
    def epoch(self) -> int:
        return self._ring.epoch

    @property
    def known(self) -> bool:
        """Whether there is any member to ask."""
        return bool(self._ring.members)

    def adopt(
        self,
        table: MemberTable,
        geometry: Geometry | None = None,
        vnodes_per_weight: int | None = None,
    ) -> None:
        """Route by another member table. A node at a new address is given a new chance."""
        vnodes = vnodes_per_weight or self._ring.vnodes_per_weight
        if (table.epoch, vnodes) != (self.epoch, self._ring.vnodes_per_weight):
            ring = Ring(table, vnodes)
            addresses = {member.node_id: member.lane_address for member in table.members}
            with self._lock:
                self._ring = ring
                self._ejections = {
                    node_id: one
                    for node_id, one in self._ejections.items()
                    if addresses.get(node_id) == one.address
                }
        if geometry is not None:
            self.geometry = geometry

    def owners(self, name: ObjectName, block_index: int) -> list[Member]:
        """The first owner_tries owners of a block, down or not."""
        return self._ring.owners(name, block_index, self.owner_tries)

    def first_owner(self, name: ObjectName, block_index: int) -> Member | None:
        """The first owner of a block; None if there is none, or it was not up lately."""
        owner = self._ring.owner(name, block_index)
        return None if owner is None or owner.node_id in self._ejections else owner

    def candidates(self, name: ObjectName, block_index: int) -> list[Member]:
        """The nodes to ask for a block, in order, at most owner_tries; none if all are down."""
        if not self._ejections:
            return self._ring.owners(name, block_index, self.owner_tries)
        count = self.owner_tries + len(self._ejections)
        owners = self._ring.owners(name, block_index, count)
        ready = [member for member in owners if not self._down(member.node_id)]
        return ready[: self.owner_tries]

    def ejected(self, name: ObjectName, block_index: int) -> list[Member]:
        """Those of a block's owners that `candidates` leaves out: for when nobody else is left."""
        return [one for one in self.owners(name, block_index) if self._down(one.node_id)]

    def admit(self, node_id: str) -> bool:
        """Whether to ask the node now. Of an ejection that is over, one caller is told yes."""
        if node_id not in self._ejections:
            return True
        with self._lock:
            one = self._ejections.get(node_id)
            if one is None:
                return True
            now_s = self._clock()
            if now_s < one.until_s:
                return False
            one.until_s = now_s + one.pause_s
            one.probed = True
            return True

    def failed(self, member: Member, why: str = "", took_s: float = 0.0) -> None:
        """The node was not reached, hung up, or stayed silent: leave it alone for a while. took_s:
        how long the request waited for that; twice as long is the least while.
        """
        with self._lock:
            now_s = self._clock()
            least_s = min(2 * took_s, self._eject_max_s)
            one = self._ejections.get(member.node_id)
            if one is None:
                pause_s = max(self._eject_s, least_s)
                self._ejections[member.node_id] = _Ejection(
                    member.lane_address, now_s + pause_s, pause_s, why
                )
            elif one.probed or now_s >= one.until_s:
                one.pause_s = min(max(one.pause_s * 2, least_s), self._eject_max_s)
                one.until_s = now_s + one.pause_s
                one.why, one.probed = why, False

    def succeeded(self, member: Member) -> None:
        """The node answered, be it with an error: it is up."""
        if member.node_id in self._ejections:
            with self._lock:
                self._ejections.pop(member.node_id, None)

    def trouble(self) -> str:
        """What the ejected nodes failed with, in one line."""
        with self._lock:
            said = [f"{node_id}: {one.why}" for node_id, one in self._ejections.items()]
        return "; ".join(said[:3]) or "no node is known"

    def _down(self, node_id: str) -> bool:
        one = self._ejections.get(node_id)
        return one is not None and self._clock() < one.until_s
