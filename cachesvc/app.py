"""The composition root of a node, and of a sidecar, which is one with another origin and no peers.
With origins.py the only place that names concrete disks and origins. The gateway, and what stands
under it, is imported by those only that have one.

Story: settings become objects, from the disk up; every port is listened on before the node
introduces itself to its peers; then it is ready, and takes in what stands on its disks while it
serves. SIGTERM turns it around: not ready, no new connections, requests under way may end, exit 0;
at once, whatever is still under way then, END_S after the drain timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import structlog
import uvloop

from cachesvc.admin import Admin
from cachesvc.coalescer import Coalescer
from cachesvc.config import ConfigError, HostConfig, NodeConfig, unreadable
from cachesvc.core.addresses import split_address
from cachesvc.core.ring import Member
from cachesvc.core.types import Geometry
from cachesvc.disk.nvme import NvmeDisk
from cachesvc.lane import LaneServer
from cachesvc.membership.cluster import Cluster
from cachesvc.membership.static import MemberList, StaticMembership
from cachesvc.metrics import Metrics
from cachesvc.origins import Origins, open_origins, tell_credentials
from cachesvc.pins import MAX_IDLE_OPEN_COUNT
from cachesvc.readahead import MAX_READAHEAD_BYTES
from cachesvc.reader import Reader
from cachesvc.service import GrpcService
from cachesvc.store import Store
from cachesvc.unix import Door, SocketFileError, open_door
from cachesvc.versions import Versions

if TYPE_CHECKING:
    from cachesvc.gateway.fields import FieldTable
    from cachesvc.gateway.server import Gateway

SWITCH_INTERVAL_S = 1e-3  # what a small answer waits beside a busy thread; shorter, fills quarrel
RECOVER_PAUSE_S = 0.5
END_S = 1.0  # for letting everything go, when requests have ended or had their time
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_MALLOC_OPTIONS = {-1: 512 << 20, -3: 32 << 20}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, in bytes
_LISTEN_BACKLOG = 1024

log = structlog.get_logger(__name__)


class StartError(RuntimeError):
    """The node cannot start; the message says why, on what, and what to do."""


@dataclass
class Node:
    """A node that runs on the current event loop (see open_node)."""

    config: HostConfig
    metrics: Metrics
    cluster: Cluster
    store: Store
    reader: Reader
    lane: LaneServer
    service: GrpcService
    admin: Admin
    gateway: Gateway | None = None

    async def drain(self) -> None:
        """Take nothing new, and let what is under way end, `drain_timeout` at most."""
        log.info("draining", timeout_s=self.config.drain_timeout)
        self.admin.ready = False
        self.service.serving(False)
        self.lane.stop_listening()
        stopped = [asyncio.ensure_future(self.service.stop(self.config.drain_timeout))]
        if self.gateway is not None:
            stopped.append(asyncio.ensure_future(self.gateway.stop(self.config.drain_timeout)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.drain_timeout):
                await self.lane.drain()
        await asyncio.gather(*stopped)


async def open_node(config: HostConfig, exits: AsyncExitStack) -> Node:
    """Start a node; `exits` stops it and gives everything back, in reverse order.

    Raises:
        StartError: a directory, port or setting cannot be used.
        ConfigError: the member list, or the token file.
    """
    token, s3_keys = config.read_token(), _s3_keys(config)
    metrics = Metrics()
    members = _member_list(config)
    address = _my_address(config, members)
    disks = [exits.enter_context(contextlib.closing(_disk(path))) for path in config.data_dir]
    weight = config.weight if isinstance(config, NodeConfig) else 1
    me = Member(_node_id(config), address, _advertised(config.grpc, address), weight)
    cluster = Cluster(me, Geometry(), token, config.data_dir[0] / "members.json")
    listener = exits.enter_context(_listen("lane", config.lane))
    door = None
    if config.unix is not None:
        door = _enter_door(config.unix, config.unix_group, exits)

    fields = _field_table(config)
    heard = None if fields is None else fields.hear
    store = _open_store(config, disks, metrics, exits)
    behind = await open_origins(config, me.node_id, cluster.geometry, metrics, heard, exits)
    reader = _open_reader(config, cluster, store, behind, metrics, exits)
    lane = LaneServer(reader, cluster, metrics)
    service = GrpcService(reader, cluster)
    admin = Admin(metrics)
    node = Node(config, metrics, cluster, store, reader, lane, service, admin)

    exits.push_async_callback(admin.stop)
    with _naming("admin", config.admin):
        await admin.start(*split_address(config.admin))
    exits.push_async_callback(service.stop, 0)
    _start_grpc(service, config.grpc)
    lane.start(listener, door)
    exits.push_async_callback(lane.stop)
    if config.s3 is not None and fields is not None:
        from cachesvc.gateway.assembly import GatewaySettings, NodeParts, open_gateway

        s3 = behind.s3
        parts = NodeParts(cluster, reader, store, s3, fields, s3.access, metrics, behind.ring)
        settings = GatewaySettings(config.s3_domain, s3_keys)
        s3_listener = exits.enter_context(_listen("s3", config.s3))
        node.gateway = await open_gateway(parts, settings, s3_listener, exits)
    exits.callback(_recover(store).set)

    membership = StaticMembership(cluster, members)
    exits.push_async_callback(membership.stop)
    await membership.start()
    service.serving(True)
    admin.ready = True
    telling = asyncio.create_task(tell_credentials(behind.s3, cluster))
    exits.callback(telling.cancel)
    return node


def _open_store(
    config: HostConfig, disks: list[NvmeDisk], metrics: Metrics, exits: AsyncExitStack
) -> Store:
    open_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    share_bytes = config.capacity // len(disks)
    for disk in disks:
        disk_bytes = disk.space().total_bytes
        if 0 < disk_bytes < share_bytes:
            log.warning(
                "capacity is more than the disk has: what fits is used, the rest never",
                disk=disk.name, disk_bytes=disk_bytes, share_bytes=share_bytes,
            )  # fmt: skip
    store = Store(
        disks,
        config.capacity,
        metrics,
        policy=config.eviction,
        max_idle_open_count=min(MAX_IDLE_OPEN_COUNT, open_limit // 4),
    )
    exits.callback(store.close)
    return store


def _open_reader(
    config: HostConfig,
    cluster: Cluster,
    store: Store,
    behind: Origins,
    metrics: Metrics,
    exits: AsyncExitStack,
) -> Reader:
    """What every lane reads by."""
    hop, origin = asyncio.get_running_loop().call_soon_threadsafe, behind.origin
    coalescer = Coalescer(origin, store, metrics, hop, max_gets=config.origin_gets)
    exits.push_async_callback(coalescer.close)
    reader = Reader(
        origin,
        store,
        coalescer,
        Versions(origin, config.revalidate),
        metrics,
        cluster.geometry,
        readahead_bytes=min(MAX_READAHEAD_BYTES, config.capacity // 8),
        owns=cluster.owns,
    )
    exits.callback(reader.readahead.close)
    return reader


async def _serve(config: HostConfig) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:  # not by the loop, which would put the default back as it closes
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
    async with AsyncExitStack() as exits:
        node = await open_node(config, exits)
        gc.freeze()  # what stays is not looked through again and again
        gc.enable()
        log.info("ready", node=node.cluster.me.node_id, lane=config.lane, grpc=config.grpc)
        print("ready", flush=True)
        await stopped.wait()
        _end_within(config.drain_timeout + END_S)
        await node.drain()
    for number in _STOP_SIGNALS:  # one more is no reason to end otherwise than with 0
        signal.signal(number, signal.SIG_IGN)
    log.info("stopped")


def _end_within(limit_s: float) -> None:
    """End the process with 0 when the time is over: a thread that hangs (in a disk, in a library)
    cannot be stopped, and the interpreter would wait for it. Block files bear a kill at any time.
    """

    def end() -> None:
        threading.Event().wait(limit_s)
        stuck = [one.name for one in threading.enumerate() if not one.daemon]
        log.warning("ended with work under way", threads=stuck)
        sys.stdout.flush()
        os._exit(0)

    Thread(target=end, name="end", daemon=True).start()


def run(config: HostConfig) -> None:
    """Run a node until SIGTERM or SIGINT, which end the process.

    Raises: StartError, ConfigError.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _keep_memory()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(_serve(config))


def _keep_memory() -> None:
    """Have the allocator keep what it was given back (glibc; others do as they like): memory that
    is new to the process costs a page fault for every 4 KiB of every large answer.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOC_OPTIONS.items():
            mallopt(option, value)


def _recover(store: Store) -> Event:
    """Take in the disks' blocks on a thread of its own. Setting the event ends it."""
    stop = Event()

    def work() -> None:
        for step in store.recover():
            if stop.is_set() or (step < 0 and stop.wait(RECOVER_PAUSE_S)):
                return
        log.info("recovered", blocks=store.stored_count, bytes=store.stored_bytes)

    Thread(target=work, name="recover", daemon=True).start()
    return stop


def _disk(directory: Path) -> NvmeDisk:
    try:
        return NvmeDisk(directory)
    except BlockingIOError as error:
        why = "is in use by another node; give another --data-dir"
        raise StartError(f"data directory {directory} {why}") from error
    except OSError as error:
        raise StartError(
            f"data directory {directory} cannot be used: {error.strerror}; "
            "make it writable for this user, or give another --data-dir"
        ) from error


def _node_id(config: HostConfig) -> str:
    """The id kept on disk, or the one that was given, which is then kept."""
    file = config.data_dir[0] / "node-id"
    try:
        kept = file.read_text().strip() if file.exists() else ""
        node_id = config.node_id or kept or f"{config.section}-{uuid.uuid4().hex[:12]}"
        if kept and kept != node_id:
            log.warning("the data directory was another node's", was=kept, now=node_id)
        if kept != node_id:
            file.write_text(node_id + "\n")
    except OSError as error:
        raise StartError(f"{file} cannot be kept: {error.strerror}; make it writable") from error
    return node_id


def _field_table(config: HostConfig) -> FieldTable | None:
    if config.s3 is None:
        return None
    from cachesvc.gateway.fields import FieldTable

    return FieldTable()


def _s3_keys(config: HostConfig) -> dict[str, str] | None:
    if config.s3_keys is None:
        return None
    from cachesvc.gateway.auth import KeyFileError, read_keys

    try:
        return read_keys(config.s3_keys)
    except KeyFileError as error:
        raise ConfigError(f"s3_keys: {error}") from error


def _member_list(config: HostConfig) -> MemberList:
    text = config.members if isinstance(config, NodeConfig) else ""
    try:
        return MemberList(text or config.lane)
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable("members", text.removeprefix("file:"), error) from error
    except ValueError as error:
        raise ConfigError(f"members: {error}") from error


def _my_address(config: HostConfig, members: MemberList) -> str:
    """Which member is this node: its lane address, or the one with its port on this host."""
    if config.lane in members.addresses:
        return config.lane
    host, port = split_address(config.lane)
    if host in ("0.0.0.0", "::"):
        for address in members.addresses:
            their_host, their_port = split_address(address)
            if their_port == port and _is_local(their_host):
                return address
    named = ", ".join(members.addresses)
    raise ConfigError(f"members: {named} is everybody but this node; add {config.lane}")


def _advertised(address: str, lane: str) -> str:
    """Where others reach an address: a wildcard is reached on the host of the lane."""
    host, port = split_address(address)
    return f"{lane.rpartition(':')[0]}:{port}" if host in ("0.0.0.0", "::") else address


def _is_local(host: str) -> bool:
    """Whether one of this machine's own addresses answers to the name."""
    with contextlib.suppress(OSError):
        for family, kind, protocol, _, where in socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM
        ):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.bind(where)
                return True
    return False


def _start_grpc(service: GrpcService, address: str) -> None:
    with _naming("gRPC", address):
        try:
            service.start(address)
        except OSError:
            _listen("gRPC", address).close()  # raises, and says why, which gRPC does not
            raise


def _listen(port_name: str, address: str) -> socket.socket:
    with _naming(port_name, address):
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_LISTEN_BACKLOG)


def _enter_door(path: Path, group: str, exits: AsyncExitStack) -> Door:
    try:
        return exits.enter_context(open_door(path, group, _LISTEN_BACKLOG))
    except SocketFileError as error:
        raise StartError(str(error)) from error


@contextlib.contextmanager
def _naming(port_name: str, address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        number = error.errno or 0  # below 0 of the resolver
        why = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise StartError(
            f"cannot listen on {address} for {port_name}: {why}; "
            f"is another program there? Give another --{port_name.lower()} HOST:PORT"
        ) from error
