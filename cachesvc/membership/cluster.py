"""What this node believes of its cluster: the member table, and what it tells whoever says Hello.

Rules: the table only ever names nodes that have introduced themselves, by id; an address is where a
node was last seen, never who it is. Whatever discovery is used (`static`), it ends in `learn`. The
table is remembered on disk, so that a node restarted while others are down moves no block; whoever
learns of a member does not wait for that (`changed`). Thread-safe: lanes on any thread ask for
`welcome` and `epoch`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import structlog

from cachesvc.core.errors import ProtocolError, Unauthenticated
from cachesvc.core.ring import DEFAULT_VNODES_PER_WEIGHT, Member, MemberTable, Ring
from cachesvc.core.types import Geometry, ObjectName
from cachesvc.wire import codec
from cachesvc.wire.frame import PROTOCOL_VERSION
from cachesvc.wire.v1 import cluster_pb2

MAX_MEMBER_COUNT = 256

log = structlog.get_logger(__name__)


class Cluster:
    """This node among its peers. `token` empty: nobody has to show one. trouble: what keeps this
    node from its work, for whoever says Hello; else empty. unmet: the same of its member list.
    """

    def __init__(
        self,
        me: Member,
        geometry: Geometry,
        token: str = "",
        memory: Path | None = None,
        vnodes_per_weight: int = DEFAULT_VNODES_PER_WEIGHT,
    ) -> None:
        self.me = me
        self.geometry = geometry
        self.vnodes_per_weight = vnodes_per_weight
        self._token = token.encode()
        self._memory = memory
        self._lock = Lock()
        self._keeping = Lock()
        self.trouble = self.unmet = ""
        self.table = MemberTable((me,))
        self._kept_epoch = self.table.epoch
        self._ring = self.ring()
        self.admits: Callable[[str], bool] = lambda _address: True
        self.changed: Callable[[], None] = self.keep

    @property
    def epoch(self) -> int:
        return self.table.epoch

    @property
    def token(self) -> str:
        return self._token.decode()

    def ring(self) -> Ring:
        """The ring of the present table."""
        return Ring(self.table, self.vnodes_per_weight)

    def owns(self, name: ObjectName, block_index: int) -> bool:
        """Whether this node is the first owner of a block. Makes the ring if the table is new."""
        if self._ring.epoch != self.epoch:
            self._ring = self.ring()
        owner = self._ring.owner(name, block_index)
        return owner is not None and owner.node_id == self.me.node_id

    def check_token(self, token: str, who: str) -> None:
        """Raises Unauthenticated unless the token is the cluster's; compared in constant time."""
        if not hmac.compare_digest(token.encode(), self._token) and self._token:
            problem = "a wrong token" if token else "no token"
            raise Unauthenticated(
                f"{self.me.node_id}: {who} came with {problem}; "
                "give the cluster's token by --token, token= or CACHESVC_TOKEN"
            )

    def welcome(
        self, hello: cluster_pb2.HelloRequest, *, trusted: bool = False
    ) -> cluster_pb2.Welcome:
        """The answer to a Hello; a node that introduces itself is learned.

        trusted: the lane has checked the token already.

        Raises: ProtocolError (another protocol version), Unauthenticated.
        """
        if hello.protocol_version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"{self.me.node_id} speaks protocol version {PROTOCOL_VERSION}, "
                f"not {hello.protocol_version}: upgrade the older side"
            )
        if not trusted:
            self.check_token(hello.token, hello.client_id[:100] or "a client")
        if hello.HasField("member"):
            self.learn(codec.unpack_member(hello.member))
        return cluster_pb2.Welcome(
            protocol_version=PROTOCOL_VERSION,
            node_id=self.me.node_id,
            config=codec.pack_geometry(self.geometry, self.vnodes_per_weight),
            table=codec.pack_table(self.table),
            trouble="; ".join(filter(None, (self.trouble, self.unmet))),
        )

    def learn(self, member: Member) -> None:
        """A node said who it is: it replaces what was known of its id, and of its address."""
        if member.node_id == self.me.node_id:
            if member.lane_address != self.me.lane_address:
                log.error(
                    "another node has my id", node=member.node_id, address=member.lane_address
                )
            return
        if not self.admits(member.lane_address):
            raise ProtocolError(
                f"{self.me.node_id}: {member.lane_address} is not in my member list; add it there"
            )
        with self._lock:
            others = {
                known.node_id: known
                for known in self.table.members
                if known.lane_address != member.lane_address or known.node_id == self.me.node_id
            }
            others[member.node_id] = member
            if len(others) > MAX_MEMBER_COUNT:
                raise ProtocolError(f"more than {MAX_MEMBER_COUNT} members")
            changed = self._adopt(MemberTable(others.values()))
        if changed:
            self.changed()

    def keep_only(self, addresses: set[str]) -> None:
        """Forget members that the member list no longer names."""
        with self._lock:
            kept = [
                member
                for member in self.table.members
                if member.node_id == self.me.node_id or member.lane_address in addresses
            ]
            changed = self._adopt(MemberTable(kept))
        if changed:
            self.changed()

    def remember(self) -> None:
        """Take up the table of the last run, as far as the member list still admits it."""
        if self._memory is None or not self._memory.exists():
            return
        try:
            known = [Member(*row) for row in json.loads(self._memory.read_text())]
            members = {
                member.node_id: member for member in known if self.admits(member.lane_address)
            }
        except (ValueError, TypeError, OSError) as error:
            log.warning("member table not remembered", file=str(self._memory), why=str(error))
            return
        members[self.me.node_id] = self.me
        with self._lock:
            changed = self._adopt(MemberTable(members.values()))
        if changed:
            self.changed()

    def keep(self) -> None:
        """Write the table to disk, if it is another one than was kept last. Waits for the disk."""
        if self._memory is None:
            return
        fresh = self._memory.with_suffix(".new")
        with self._keeping:
            table = self.table
            if table.epoch == self._kept_epoch:
                return
            rows = [[m.node_id, m.lane_address, m.grpc_address, m.weight] for m in table.members]
            try:
                fresh.write_text(json.dumps(rows))
                fresh.replace(self._memory)
                self._kept_epoch = table.epoch
            except OSError as error:
                log.warning("member table not kept", file=str(self._memory), why=str(error))

    def _adopt(self, table: MemberTable) -> bool:
        """Under the lock: whether it is another table."""
        if table.epoch == self.table.epoch:
            return False
        self.table = table
        log.info("members", epoch=f"{table.epoch:016x}", nodes=[m.node_id for m in table.members])
        return True
