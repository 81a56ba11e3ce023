"""The TCP and Unix lanes: requests over pooled connections, bytes straight into the target.

Rules
- An idle connection is used again, last one first; whatever happens on it while idle, it is closed.
  So is one to an address that no member has any more (`keep_to`), and one that said Hello where
  others idle already.
- A connection is kept only if it stands between two answers; after any other error it is closed.
- An idle connection that turns out to be closed by the node, before a byte of the answer came, is
  replaced by a fresh one, once and for free: the node may have been restarted.
- An answer that the node cut short is CorruptAnswer and not NodeUnavailable: a node does that when
  a block file turns out to be damaged while it is sent, and then has mended it.
- A member whose Unix socket is known is asked through it; while nobody accepts there, or somebody
  else does, over TCP. Large answers then come as files, which are closed whatever comes of them;
  where either end may open no more of them, or the node hangs up before a byte, as bytes. What a
  signal's handler raises meanwhile ends the request, and is raised once they are closed.

Story: `ask` takes a connection, sends, and feeds frames to a Receipt, which says where the bytes go
and whether they are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from threading import Lock
from typing import TypeVar
from weakref import ref

from cachesvc.core.errors import CacheError, CorruptAnswer, NodeUnavailable, ProtocolError
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.ring import Member
from cachesvc.core.types import ObjectName, Source
from cachesvc.wire import codec
from cachesvc.wire.codec import ReadHead
from cachesvc.wire.frame import Kind
from cachesvc.wire.v1 import cache_pb2
from cachesvc_client import foreseen, passed
from cachesvc_client.config import ClientConfig, is_local
from cachesvc_client.connection import Connection, HungUp, NotReached, ShortOfFiles
from cachesvc_client.effects import Reply, Target
from cachesvc_client.hello import Welcome
from cachesvc_client.interrupts import Held, Waiter
from cachesvc_client.receipt import Receipt
from cachesvc_client.verified import Verified

T = TypeVar("T")
Using = Callable[[Connection | None], None]


class _Asked(Waiter):
    """The connection that a request is on, to be hung up on by a signal's handler."""

    def __init__(self, using: Using) -> None:
        super().__init__()
        self._using = using
        self._connection: Connection | None = None

    def using(self, connection: Connection | None) -> None:
        """See `Lane.ask`. Raises GivenUp if nobody waits any more."""
        self._using(connection)
        self._connection = connection
        if connection is not None:
            self.check()

    def leave(self) -> None:
        """Have the request fail at once, and no other connection asked."""
        super().leave()
        if self._connection is not None:
            self._connection.abort()


class Lane:
    """The connections of one client to all nodes. Any thread may use it."""

    def __init__(self, config: ClientConfig, verified: Verified) -> None:
        self._config = config
        self._verified = verified
        self._idle: dict[str, list[Connection]] = {}
        # Those in use. Who uses one keeps it: what a signal's handler raises on the way to who
        # would give it back leaves it to nobody, and so it is closed.
        self._busy: set[ref[Connection]] = set()
        self._local: dict[str, str] = {}  # unix:// endpoints by the id of the node behind them
        self._current: frozenset[str] | None = None  # the addresses of members, once known
        self._lock = Lock()
        self._closed = False

    def hello(self, address: str) -> Welcome:
        """What a node says of its cluster, over a fresh connection.

        Raises: NodeUnavailable, ProtocolError, Unauthenticated.
        """
        connection = self._fresh(address)
        if connection.local:
            self._local[connection.welcome.node_id] = address
        connection.clean = not self._idle.get(address)
        self._give(connection)
        return connection.welcome

    def greet(self, member: Member) -> Welcome:
        """The same of a member, by the way on which it is asked."""
        local = self._local.get(member.node_id)
        if local is not None:
            try:
                return self.hello(local)
            except NotReached:
                pass
        return self.hello(member.lane_address)

    def keep_to(self, members: Iterable[Member]) -> None:
        """These are the cluster: what idles at other addresses, nobody will use."""
        with self._lock:
            self._current = frozenset(member.lane_address for member in members)
            gone = [address for address in self._idle if not self._in_use(address)]
            stale = [one for address in gone for one in self._idle.pop(address)]
        for connection in stale:
            connection.close()

    def passes(self, member: Member) -> bool:
        """Whether the member is behind a Unix socket of this host."""
        return member.node_id in self._local

    def ask(
        self,
        member: Member,
        request: ReadRequest | StatRequest,
        target: Target | None,
        epoch: int,
        using: Using = lambda _: None,
    ) -> Reply:
        """The contract of effects.Ask. using: told of the connection that is asked, for `abort`,
        and by None when it is no longer in use for this.
        """
        local = self._local.get(member.node_id)
        if local is not None:
            try:
                return self._ask(local, member, request, target, epoch, using)
            except NotReached:
                pass  # it may have moved, and its member be up all the same
            except (HungUp, ShortOfFiles):
                if not passed.worth(request, target):
                    raise
                return self._ask(local, member, request, target, epoch, using, passing=False)
        return self._ask(member.lane_address, member, request, target, epoch, using)

    def _ask(
        self,
        address: str,
        member: Member,
        request: ReadRequest | StatRequest,
        target: Target | None,
        epoch: int,
        using: Using,
        passing: bool = True,
    ) -> Reply:
        def talk(connection: Connection) -> Reply:
            return self._talk(connection, request, target, epoch, using)

        if not (passing and is_local(address) and passed.worth(request, target)):
            return self._exchange(address, member, talk)
        copies = target is not None and not target.in_place
        request = replace(request, descriptors=True, landed_as_bytes=copies)
        asked = _Asked(using)
        using = asked.using
        with Held(asked.leave):  # a handler's exception between two bytecodes leaks files
            try:
                return self._exchange(address, member, talk)
            except CacheError:
                asked.check()
                raise

    def _exchange(self, address: str, member: Member, talk: Callable[[Connection], Reply]) -> Reply:
        """Talk on an idle connection, else on a fresh one, if the member is still behind it."""
        reply = self._on_idle(address, talk)
        if reply is not None:
            return reply
        connection = self._fresh(address)
        if connection.local and connection.welcome.node_id != member.node_id:
            self._local.pop(member.node_id, None)
            self._give(connection)
            raise NotReached(f"node {member.node_id} is no longer behind {address}")
        return talk(connection)

    def forget(self, member: Member, names: Sequence[ObjectName]) -> None:
        """The contract of effects.Forget."""
        address = member.lane_address
        if not self._on_idle(address, lambda connection: self._forget(connection, names)):
            self._forget(self._fresh(address), names)

    def close(self) -> None:
        """Close everything; requests under way fail with NodeUnavailable."""
        with self._lock:
            self._closed = True
            idle = [one for kept in self._idle.values() for one in kept]
            self._idle.clear()
            busy = [found for one in list(self._busy) if (found := one()) is not None]
        for connection in idle:
            connection.close()
        for connection in busy:
            connection.abort()

    # -- one request

    def _on_idle(self, address: str, talk: Callable[[Connection], T]) -> T | None:
        """What comes of talking on an idle connection. None: no good one, or stale; use a fresh."""
        connection = self._take(address)
        if connection is None:
            return None
        try:
            return talk(connection)
        except HungUp:
            if connection.heard:
                raise
            self._drop_idle(address)
            return None

    def _talk(
        self,
        connection: Connection,
        request: ReadRequest | StatRequest,
        target: Target | None,
        epoch: int,
        using: Using,
    ) -> Reply:
        try:
            using(connection)
            if isinstance(request, StatRequest):
                return self._stat(connection, request)
            assert target is not None, "a read needs a target"
            try:
                return self._read(connection, request, target, epoch)
            except HungUp as error:
                if not connection.heard:
                    raise
                raise CorruptAnswer(f"{error}: its answer is cut short") from error
        finally:
            using(None)
            self._give(connection)

    def _forget(self, connection: Connection, names: Sequence[ObjectName]) -> bool:
        """True: the node has forgotten."""
        try:
            connection.send(Kind.FORGET, codec.pack_forget(names))
            prefix, header = connection.frame()
            if prefix.kind is not Kind.FORGET_ANSWER or prefix.body_bytes:
                raise ProtocolError(f"node {connection.address}: {prefix.kind.name} for a Forget")
            codec.raise_error(codec.parse(cache_pb2.ForgetAnswer, header).error)
            connection.clean = True
        finally:
            self._give(connection)
        return True

    def _stat(self, connection: Connection, request: StatRequest) -> Reply:
        connection.send(Kind.STAT, codec.pack_stat(request))
        while True:
            prefix, header = connection.frame()
            if prefix.body_bytes or prefix.kind not in (Kind.STAT_ANSWER, Kind.READ_ANSWER):
                raise ProtocolError(f"node {connection.address}: {prefix.kind.name} for a Stat")
            if prefix.kind is Kind.READ_ANSWER:  # it says that it is at work, or refuses
                refusal = codec.parse(cache_pb2.ReadHeader, header)
                if not codec.unpack_read_head(request.name, refusal).pending:
                    raise ProtocolError(f"node {connection.address} answers a Stat with a Read")
                connection.pace.pending()
                continue
            message = codec.parse(cache_pb2.StatAnswer, header)
            connection.clean = True
            head = codec.unpack_stat_answer(request.name, message)
            assert head.version is not None
            return Reply(head.version, head.fresh_for_s, epoch=head.epoch)

    def _read(
        self, connection: Connection, request: ReadRequest, target: Target, epoch: int
    ) -> Reply:
        geometry = connection.welcome.geometry
        page_bytes = geometry.page_bytes
        if foreseen.fits(request, geometry):
            reply = foreseen.ask(connection, request, target, epoch, page_bytes)
            if reply is not None:
                return reply
        else:
            connection.send(Kind.READ, codec.pack_read(request, epoch))
        receipt = Receipt(request, target, page_bytes, f"node {connection.address}")
        wrong: list[tuple[int, int]] = []
        while True:
            prefix, header = connection.frame()
            if prefix.kind is not Kind.READ_ANSWER:
                raise ProtocolError(f"node {connection.address}: {prefix.kind.name} for a Read")
            message = codec.parse(cache_pb2.ReadHeader, header)
            connection.clean = bool(message.error.code) and not prefix.body_bytes
            head = codec.unpack_read_head(request.name, message)
            answered = receipt.range_count
            if connection.files:
                wrong += self._accept(connection, receipt, head, prefix.body_bytes, target)
            else:
                for segment, view in receipt.take(head, prefix.body_bytes):
                    check = receipt.check(segment, view)
                    start = segment.start if segment.source is Source.DISK else None
                    connection.fill(view, start, check.landed)
                    receipt.settle(segment, right=check.right)
            if head.last:
                reply = receipt.reply()
                connection.clean = True
                if wrong:
                    again = replace(
                        request, ranges=tuple(wrong), version=reply.version,
                        verify=True, descriptors=False, landed_as_bytes=False,
                    )  # fmt: skip
                    sources = Counter(self._read(connection, again, target, epoch).sources)
                    reply = replace(reply, sources=sources + Counter(reply.sources))
                return reply
            if head.pending:
                connection.pace.pending()
            else:
                connection.pace.settle(receipt.range_count - answered)
                connection.keep_pace()

    def _accept(
        self,
        connection: Connection,
        receipt: Receipt,
        head: ReadHead,
        body_bytes: int,
        target: Target,
    ) -> list[tuple[int, int]]:
        """Take segments whose bytes stand in files that came with the frame; the ranges of those
        that are not right: the node is to check them, and to send bytes.
        """
        wrong = []
        files, page_bytes = connection.files, connection.welcome.geometry.page_bytes
        for segment in receipt.take_files(head, body_bytes, len(files)):
            assert segment.descriptor is not None, "the receipt has looked"
            file = files[segment.descriptor]
            if passed.accept(segment, file, target, page_bytes, receipt.size_bytes, self._verified):
                receipt.settle(segment, right=True)
                connection.pace.came(segment.length_bytes, 0)
            else:
                wrong.append((segment.start, segment.start + segment.length_bytes))
        connection.close_files()
        return wrong

    # -- the pool

    def _fresh(self, address: str) -> Connection:
        connection = Connection(address, self._config)
        connection.mark = ref(connection, self._busy.discard)
        with self._lock:
            if not self._closed:
                self._busy.add(connection.mark)
                return connection
        connection.close()
        raise NodeUnavailable("this client is closed")

    def _take(self, address: str) -> Connection | None:
        """An idle connection, if there is a good one."""
        while True:
            with self._lock:
                kept = self._idle.get(address)
                if not kept:
                    return None
                connection = kept.pop()
                self._busy.add(connection.mark)
            if connection.idle():
                return connection
            connection.clean = False
            self._give(connection)

    def _give(self, connection: Connection) -> None:
        """Done with it: keep it if it can be used again."""
        connection.close_files()
        with self._lock:
            self._busy.discard(connection.mark)
            if connection.clean and not self._closed and self._in_use(connection.address):
                kept = self._idle.setdefault(connection.address, [])
                if len(kept) < self._config.max_idle_sockets:
                    kept.append(connection)
                    return
        connection.close()

    def _in_use(self, address: str) -> bool:
        """Whether requests may go there: sockets of this host stay, they are few."""
        return self._current is None or address in self._current or is_local(address)

    def _drop_idle(self, address: str) -> None:
        with self._lock:
            stale = self._idle.pop(address, [])
        for connection in stale:
            connection.close()
