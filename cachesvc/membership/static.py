"""Discovery by a list of lane addresses: given on the command line, or in a file that is read again
when it changes.

Story: an address says nothing about who is there, so this node says Hello to each, with its own
introduction; both sides then know each other by id. A node listens before it introduces itself, so
once every node of a list is ready, each has met each. After that the round is repeated, for nodes
that come later or return elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import structlog

from cachesvc.core.addresses import split_address
from cachesvc.core.errors import CacheError, ProtocolError
from cachesvc.core.ring import Member
from cachesvc.membership.cluster import Cluster
from cachesvc.membership.greeting import greeting
from cachesvc.membership.unmet import Unmet
from cachesvc.wire import codec
from cachesvc.wire.v1 import cluster_pb2

ROUND_INTERVAL_S = 2.0
HELLO_TIMEOUT_S = 1.0
MAX_ADDRESS_COUNT = 256

log = structlog.get_logger(__name__)


class MemberList:
    """The addresses of a cluster, this node's own included: `HOST:PORT,...` or `file:PATH`.

    Raises:
        ValueError: the text is neither, or an address is none.
        OSError: the file cannot be read.
    """

    def __init__(self, text: str) -> None:
        self._file = Path(text.removeprefix("file:")) if text.startswith("file:") else None
        self._stamp: tuple[int, int] | None = None
        self.addresses: tuple[str, ...] = ()
        if self._file is None:
            self.addresses = _addresses(text.split(","))
        else:
            self.changed()

    def changed(self) -> bool:
        """Read the file again if it was written since; whether the list is another one now."""
        if self._file is None:
            return False
        stat = self._file.stat()
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp == self._stamp:
            return False
        lines = [line.partition("#")[0].strip() for line in self._file.read_text().splitlines()]
        before, self.addresses = self.addresses, _addresses(line for line in lines if line)
        self._stamp = stamp
        return before != self.addresses


def _addresses(texts: Iterable[str]) -> tuple[str, ...]:
    addresses = tuple(dict.fromkeys(text.strip() for text in texts))
    for address in addresses:
        if not split_address(address)[1]:
            raise ValueError(f"{address!r} is no HOST:PORT of a node: port 0 is any port")
    if not 0 < len(addresses) <= MAX_ADDRESS_COUNT:
        raise ValueError(f"{len(addresses)} members; give 1 to {MAX_ADDRESS_COUNT}")
    return addresses


class StaticMembership:
    """Keeps a cluster's table in step with a member list, on the event loop."""

    def __init__(self, cluster: Cluster, members: MemberList) -> None:
        self._cluster = cluster
        self._members = members
        self._unmet = Unmet()
        self._refusals: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._keeps: set[asyncio.Task[None]] = set()
        cluster.admits = lambda address: address in self._members.addresses

    async def start(self) -> None:
        """One round now, the others in the background. Call it once this node listens."""
        self._loop = asyncio.get_running_loop()
        self._cluster.changed = self._hop
        self._cluster.remember()
        await self.round()
        await asyncio.to_thread(self._cluster.keep)
        self._task = asyncio.create_task(self._keep_going())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._cluster.changed = self._cluster.keep
        await asyncio.gather(*self._keeps)

    def _hop(self) -> None:
        self._loop.call_soon_threadsafe(self._keep)

    def _keep(self) -> None:
        """Have the table written aside: whoever changed it has clients to serve."""
        task = asyncio.ensure_future(asyncio.to_thread(self._cluster.keep))
        self._keeps.add(task)
        task.add_done_callback(self._keeps.discard)

    async def round(self) -> None:
        """Introduce ourselves to every other address."""
        others = [a for a in self._members.addresses if a != self._cluster.me.lane_address]
        await asyncio.gather(*(self._introduce(address) for address in others))
        met = {member.lane_address for member in self._cluster.table.members}
        self._unmet.keep_to(address for address in others if address not in met)
        self._cluster.unmet = self._unmet.trouble()

    async def _keep_going(self) -> None:
        while True:
            await asyncio.sleep(ROUND_INTERVAL_S)
            try:
                if self._members.changed():
                    self._cluster.keep_only(set(self._members.addresses))
            except (OSError, ValueError) as error:
                log.warning("member list not read; keeping the last one", why=str(error))
            try:
                await self.round()
            except Exception:
                log.exception("a round of introductions broke")

    async def _introduce(self, address: str) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                async with greeting(self._cluster, address, introducing=True) as (welcome, _, _):
                    pass
            codec.raise_error(welcome.error)
            self._check_config(address, welcome)
            theirs = codec.unpack_table(welcome.table).members
            who = next(m for m in theirs if m.node_id == welcome.node_id)
            self._cluster.learn(who)
            self._check_id(address, who)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            self._unmet.failed(address)
        except (CacheError, StopIteration, OSError, ValueError) as error:
            self._refused(address, str(error))
        else:
            self._refusals.pop(address, None)
            self._unmet.met(address)

    def _refused(self, address: str, why: str) -> None:
        self._unmet.failed(address, why)
        if self._refusals.get(address) != why:  # once, and not in every round
            self._refusals[address] = why
            log.warning("member refused", address=address, why=why)

    def _check_id(self, address: str, who: Member) -> None:
        me = self._cluster.me
        if who.node_id == me.node_id and who.lane_address != me.lane_address:
            raise ProtocolError(
                f"{address} answers with this node's id; give each a data directory of its own"
            )

    def _check_config(self, address: str, welcome: cluster_pb2.Welcome) -> None:
        ours = codec.pack_geometry(self._cluster.geometry, self._cluster.vnodes_per_weight)
        if welcome.config != ours:
            raise ProtocolError(
                f"{address} has other cluster settings; they must be equal everywhere"
            )
