"""The same questions over gRPC, for `grpc://` endpoints: sync stubs, payloads never parsed.

Rules
- Messages of a read pass through as bytes; codec.split_chunk finds the data in place.
- A channel is tried by a plain connect first, so that a dead node costs connect_timeout_ms.
- gRPC itself has no limit on silence: one watching thread cancels calls that stand still. Messages
  that come too slowly (pace.py) end a call as well.
- What a signal's handler raises in the middle of gRPC leaves a lock of its taken for good, so it
  waits: in a read for the next message, which comes within 0.5 s from a node that is well.
- No gRPC in a child of a process that has used it: tried with grpcio 1.85, a child's new channel
  hangs in one of three forks while the parent's threads are in calls (with fork support on), or its
  calls fail (off), and with fork support on even the fork itself can hang the child or break a call
  of the parent. So fork support is off unless the environment says otherwise, and a child talks to
  the members that its parent knew over the TCP lane (`usable`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Protocol

from cachesvc import names
from cachesvc.core.errors import CacheError, NodeUnavailable, ProtocolError
from cachesvc.core.request import ReadRequest, StatRequest
from cachesvc.core.ring import Member
from cachesvc.core.types import ObjectName
from cachesvc.wire import codec
from cachesvc.wire.v1 import cache_pb2, cluster_pb2
from cachesvc_client import forks
from cachesvc_client.config import ClientConfig, split_address
from cachesvc_client.effects import Reply, Target
from cachesvc_client.hello import Welcome, hello, unpack_welcome
from cachesvc_client.interrupts import Held, Waiter
from cachesvc_client.pace import TOO_SLOW, Pace
from cachesvc_client.receipt import Receipt

if TYPE_CHECKING:
    import grpc

_SERVICE = "/cachesvc.wire.v1.Cache/"
_MAX_MESSAGE_BYTES = 64 << 20
_WARM_BYTES = 16 << 20
_CODE_KEY = "cachesvc-error-code"

_used_in_generation: int | None = None


def usable() -> bool:
    """Whether gRPC works in this process: not where a parent has used it."""
    return _used_in_generation in (None, forks.generation)


class Rpc:
    """The gRPC channels of one client to all nodes. Any thread may use it."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._channels: dict[str, tuple[grpc.Channel, int]] = {}  # with the cluster's page_bytes
        self._changed = Condition()
        self._watch = _Watch(config.silence_ms / 1000)
        token = config.token
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def hello(self, address: str) -> Welcome:
        """What a node says of its cluster.

        Raises: NodeUnavailable, ProtocolError, Unauthenticated.
        """
        with Held(Waiter().leave):
            with self._changed:
                known = self._channels.get(address)
            channel = known[0] if known else self._open(address)
            try:
                return self._greet(channel, address)
            finally:
                if known is None:
                    channel.close()

    def greet(self, member: Member) -> Welcome:
        """The same of a member."""
        return self.hello(member.grpc_address)

    def keep_to(self, members: Iterable[Member]) -> None:
        """These are the cluster: channels to other addresses close when their calls are over."""
        current = {member.grpc_address for member in members}
        with self._changed:
            self._channels = {
                address: kept for address, kept in self._channels.items() if address in current
            }

    def passes(self, _: Member) -> bool:
        """gRPC passes no files."""
        return False

    def ask(
        self, member: Member, request: ReadRequest | StatRequest, target: Target | None, epoch: int
    ) -> Reply:
        """The contract of effects.Ask."""
        if not member.grpc_address:
            raise NodeUnavailable(f"node {member.node_id} offers no gRPC")
        waiter = Waiter()
        with Held(waiter.leave):
            return self._ask(member, request, target, epoch, waiter)

    def _ask(
        self,
        member: Member,
        request: ReadRequest | StatRequest,
        target: Target | None,
        epoch: int,
        waiter: Waiter,
    ) -> Reply:
        channel, page_bytes = self._channel(member.grpc_address)
        try:
            with self._errors(member.grpc_address):
                if isinstance(request, StatRequest):
                    return self._stat(channel, request)
                assert target is not None, "a read needs a target"
                who = f"node {member.grpc_address}"
                receipt = Receipt(request, target, page_bytes, who)
                return self._read(channel, request, receipt, epoch, waiter)
        except NodeUnavailable:
            self._drop(member.grpc_address, channel)
            raise

    def forget(self, member: Member, names: Sequence[ObjectName]) -> None:
        """The contract of effects.Forget."""
        address = member.grpc_address
        if not address:
            raise NodeUnavailable(f"node {member.node_id} offers no gRPC")
        timeout_s = self._config.grpc_stat_ms / 1000
        with Held(Waiter().leave):
            channel, _ = self._channel(address)
            call = channel.unary_unary(
                _SERVICE + "Forget", _as_it_is, cache_pb2.ForgetAnswer.FromString
            )
            with self._errors(address):
                call(codec.pack_forget(names), timeout=timeout_s, metadata=self._metadata)

    def close(self) -> None:
        """Close all channels; calls under way fail with NodeUnavailable."""
        with self._changed:
            channels = [channel for channel, _ in self._channels.values()]
            self._channels.clear()
        self._watch.stop()
        for channel in channels:
            channel.close()

    # -- calls

    def _stat(self, channel: grpc.Channel, request: StatRequest) -> Reply:
        call = channel.unary_unary(_SERVICE + "Stat", _as_it_is, cache_pb2.StatAnswer.FromString)
        timeout_s = self._config.grpc_stat_ms / 1000
        answer = call(codec.pack_stat(request), timeout=timeout_s, metadata=self._metadata)
        head = codec.unpack_stat_answer(request.name, answer)
        assert head.version is not None
        return Reply(head.version, head.fresh_for_s, epoch=head.epoch)

    def _read(
        self,
        channel: grpc.Channel,
        request: ReadRequest,
        receipt: Receipt,
        epoch: int,
        waiter: Waiter,
    ) -> Reply:
        stream = channel.unary_stream(_SERVICE + "Read", _as_it_is, _as_it_is)(
            codec.pack_read(request, epoch), metadata=self._metadata
        )
        cancel: Any = stream.cancel
        pace, asked_s = Pace(self._config.silence_ms / 1000), time.monotonic()
        with self._watch.over(stream) as moved:
            try:
                for raw in stream:
                    moved()
                    waiter.check()
                    pace.came(len(raw), time.monotonic() - asked_s)
                    self._take(raw, request, receipt, pace)
                    asked_s = time.monotonic()
            finally:
                cancel()
        return receipt.reply()

    @staticmethod
    def _take(raw: bytes, request: ReadRequest, receipt: Receipt, pace: Pace) -> None:
        header, data = codec.split_chunk(raw)
        message = codec.parse(cache_pb2.ReadHeader, header)
        head = codec.unpack_read_head(request.name, message)
        offset, answered = 0, receipt.range_count
        for segment, view in receipt.take(head, len(data)):
            view[:] = data[offset : offset + len(view)]
            check = receipt.check(segment, view)
            check.landed(len(view))
            receipt.settle(segment, right=check.right)
            offset += len(view)
        if head.pending:
            pace.pending()
            return
        pace.settle(receipt.range_count - answered)
        if pace.too_slow and not head.last:
            raise NodeUnavailable(f"{receipt.who}: {TOO_SLOW}")

    def _greet(self, channel: grpc.Channel, address: str) -> Welcome:
        call = channel.unary_unary(
            _SERVICE + "Hello",
            request_serializer=cluster_pb2.HelloRequest.SerializeToString,
            response_deserializer=cluster_pb2.Welcome.FromString,
        )
        timeout_s = self._config.hello_timeout_ms / 1000
        with self._errors(address):
            answer = call(hello(None), timeout=timeout_s, metadata=self._metadata)
        return unpack_welcome(answer, address)

    # -- channels

    def _channel(self, address: str) -> tuple[grpc.Channel, int]:
        with self._changed:
            known = self._channels.get(address)
        if known is not None:
            return known
        channel = self._open(address)
        try:
            page_bytes = self._greet(channel, address).geometry.page_bytes
        except BaseException:
            channel.close()
            raise
        with self._changed:
            kept = self._channels.setdefault(address, (channel, page_bytes))
        if kept[0] is not channel:
            channel.close()
        return kept

    def _open(self, address: str) -> grpc.Channel:
        global _used_in_generation  # noqa: PLW0603 - the process is the one thing that is global
        if not usable():
            raise NodeUnavailable(f"node {address}: gRPC cannot be used in a forked child")
        limits_s = self._config.resolve_timeout_ms / 1000, self._config.connect_timeout_ms / 1000
        try:
            names.connected(*split_address(address), *limits_s).close()
        except (OSError, UnicodeError) as error:
            raise NodeUnavailable(f"node {address} cannot be reached: {error}") from error
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        with forks.held_off():  # who forks behind it knows that it was used
            import grpc

            if _used_in_generation is None:
                _warm_allocator()
            _used_in_generation = forks.generation
        options = [
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        return grpc.insecure_channel(address, options)

    def _drop(self, address: str, failed: grpc.Channel) -> None:
        """Use the channel no more, unless another one took its place. Calls that are still under
        way on it go on; it closes when the last of them lets it go.
        """
        with self._changed:
            known = self._channels.get(address)
            if known is not None and known[0] is failed:
                del self._channels[address]

    @contextmanager
    def _errors(self, address: str) -> Iterator[None]:
        """What gRPC raises, as one of ours."""
        import grpc

        try:
            yield
        except grpc.RpcError as error:
            raise _error_of(error, address) from error
        except ValueError as error:  # a closed channel
            if isinstance(error, CacheError):
                raise
            raise NodeUnavailable(f"node {address}: {error}") from error


def _error_of(error: Any, address: str) -> CacheError:
    status, details = error.code().name, error.details() or ""
    told = dict(error.trailing_metadata() or ()).get(_CODE_KEY, "")
    if str(told).isdecimal():
        try:
            codec.raise_error(cluster_pb2.Error(code=int(told), message=details))  # type: ignore[arg-type]
        except CacheError as precise:
            return precise
    if status in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"):
        return NodeUnavailable(f"node {address}: {status.lower()}: {details}")
    for kind, (_, name) in codec.ERRORS.items():
        if name == status and name != "INVALID_ARGUMENT":
            return kind(f"node {address}: {details}")
    return ProtocolError(f"node {address}: {status.lower()}: {details}")


def _warm_allocator() -> None:
    """Have glibc keep the memory of messages from one to the next.

    It gives memory back to the kernel in pieces larger than any that the process has freed before
    (mallopt(3), M_MMAP_THRESHOLD), and each piece costs a page fault for every 4 KiB when it comes
    again: half of the time of a receiving client. So free one larger piece than a message needs.
    """
    bytearray(_WARM_BYTES)


def _as_it_is(raw: bytes) -> bytes:
    return raw


class _Call(Protocol):
    def cancel(self) -> bool: ...


class _Watch:
    """Cancels calls in which nothing has come for `silence_s`; a thread while there are any."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._moved_s: dict[_Call, float] = {}
        self._changed = Condition()
        self._thread: Thread | None = None

    @contextmanager
    def over(self, call: _Call) -> Iterator[Any]:
        """Watch a call; the function yielded says that something came."""

        def moved() -> None:
            self._moved_s[call] = time.monotonic()

        with self._changed:
            moved()
            if self._thread is None:
                self._thread = Thread(target=self._run, name="cachesvc-watch", daemon=True)
                self._thread.start()
        try:
            yield moved
        finally:
            with self._changed:
                self._moved_s.pop(call, None)

    def stop(self) -> None:
        with self._changed:
            calls = list(self._moved_s)
            self._changed.notify_all()
        for call in calls:
            with suppress(Exception):
                call.cancel()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._moved_s:
                    self._thread = None
                    return
                self._changed.wait(self._silence_s / 4)
                late = time.monotonic() - self._silence_s
                silent = [call for call, moved_s in self._moved_s.items() if moved_s < late]
            for call in silent:
                call.cancel()
