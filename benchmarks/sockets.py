"""What buffers and low-water marks of sockets make of hot bodies, 8 MiB and 64 KiB; and what
sending them from a mapping does.

The client's own connection, without checksums, against nodes whose send buffers differ; TCP, and
bodies over the Unix lane. The base is a client that is woken for everything, and on the Unix lane
the kernel's buffer; built in are SO_RCVLOWAT of 256 KiB over TCP, and SO_SNDBUF of 1 MiB on both.
GB/s (8 MiB), p50 in us (64 KiB), and CPU-s/GiB of both ends together. SO_RCVLOWAT is set for all of
a body but its end, and reset before that.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cachesvc_client.config import configured
from cachesvc_client.connection import Connection

from benchmarks.harness import MIB, Figure, cpu_seconds, dev_origin, interleaved, node, ratios
from benchmarks.objects import make_object
from benchmarks.rawlane import RawLane
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.wire import codec
from cachesvc.wire.frame import Kind
from cachesvc.wire.v1 import cache_pb2

KIB = 1024
OBJECT_BYTES, PASS_BYTES, SMALL_BYTES, SMALL_COUNT = 64 * MIB, 512 * MIB, 64 * KIB, 1500
NAME = ObjectName("bench", "object")
BASE_BUFFER = 1 * MIB


@dataclass(frozen=True, slots=True)
class Variant:
    """Sizes in bytes; 0: as the kernel has it. all_at_once: MSG_WAITALL."""

    send_buffer: int = BASE_BUFFER
    receive_buffer: int = 0
    low_water: int = 0
    all_at_once: bool = True
    unix: bool = False
    mapping: bool = False

    @property
    def node(self) -> dict[str, str]:
        """The environment of its node."""
        sent = {"SEND_BUFFER_BYTES": str(self.send_buffer)}
        return sent | ({"FROM_MAPPING": "1"} if self.mapping else {})


TCP, UNIX = "TCP, base", "Unix, the kernel's send buffer"
VARIANTS = {
    TCP: Variant(),
    "TCP, received as it comes": Variant(all_at_once=False),
    "TCP, SO_RCVLOWAT 64 KiB": Variant(low_water=64 * KIB),
    "TCP, SO_RCVLOWAT 256 KiB": Variant(low_water=256 * KIB),
    "TCP, SO_RCVLOWAT 1 MiB": Variant(low_water=MIB),
    "TCP, SO_RCVBUF 256 KiB": Variant(receive_buffer=256 * KIB),
    "TCP, SO_RCVBUF 1 MiB": Variant(receive_buffer=MIB),
    "TCP, SO_RCVBUF 4 MiB": Variant(receive_buffer=4 * MIB),
    "TCP, the kernel's send buffer": Variant(send_buffer=0),
    "TCP, SO_SNDBUF 256 KiB": Variant(send_buffer=256 * KIB),
    "TCP, SO_SNDBUF 4 MiB": Variant(send_buffer=4 * MIB),
    "TCP, SO_SNDBUF 512 KiB": Variant(send_buffer=512 * KIB),
    "TCP, SO_SNDBUF 256 KiB, SO_RCVLOWAT 256 KiB": Variant(256 * KIB, low_water=256 * KIB),
    "TCP, SO_SNDBUF 512 KiB, SO_RCVLOWAT 256 KiB": Variant(512 * KIB, low_water=256 * KIB),
    "TCP, sent from a mapping": Variant(mapping=True),
    UNIX: Variant(send_buffer=0, unix=True),
    "Unix, SO_SNDBUF 256 KiB": Variant(send_buffer=256 * KIB, unix=True),
    "Unix, SO_SNDBUF 1 MiB": Variant(unix=True),
    "Unix, SO_SNDBUF 4 MiB": Variant(send_buffer=4 * MIB, unix=True),
    "Unix, sent from a mapping": Variant(unix=True, mapping=True),
}


class _Tuned(Connection):
    """The client's connection with other options."""

    def __init__(self, address: str, variant: Variant) -> None:
        super().__init__(address, configured(address))
        self._variant = variant
        if variant.receive_buffer:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, variant.receive_buffer)

    def fill(self, view: memoryview, *how: Any) -> None:
        if not hasattr(self, "_variant"):  # Welcome
            super().fill(view, *how)
            return
        mark = self._variant.low_water
        if mark and len(view) > mark and not self.local:
            self._await(mark)
            self._fill(view[:-mark])
            self._await(1)
            view = view[-mark:]
        if self._variant.all_at_once:
            self._fill(view)
            return
        while view:
            count = self._sock.recv_into(view)
            if not count:
                raise ConnectionError("the node hung up")
            view = view[count:]

    def read(self, version: ObjectVersion, start: int, view: memoryview) -> None:
        request = ReadRequest(NAME, ((start, start + len(view)),), version)
        self.send(Kind.READ, codec.pack_read(request, 0))
        while True:
            prefix, header = self.frame()
            message = codec.parse(cache_pb2.ReadHeader, header)
            codec.raise_error(message.error)
            self.fill(view[: prefix.body_bytes])
            view = view[prefix.body_bytes :]
            if message.last:
                return


class _Case:
    """One variant against its node."""

    def __init__(self, connection: _Tuned, version: ObjectVersion, pid: int) -> None:
        self._connection = connection
        self._version = version
        self._pid = pid
        self.cpu: list[float] = []

    def big(self) -> float:
        """GB/s."""
        view = memoryview(bytearray(8 * MIB))
        before, started = self._used(), time.perf_counter()
        for position in range(0, PASS_BYTES, len(view)):
            self._connection.read(self._version, position % OBJECT_BYTES, view)
        seconds = time.perf_counter() - started
        self.cpu.append((self._used() - before) / (PASS_BYTES / (1 << 30)))
        return PASS_BYTES / seconds / 1e9

    def small(self) -> float:
        """p50 in us."""
        view, times = memoryview(bytearray(SMALL_BYTES)), []
        for number in range(SMALL_COUNT):
            started = time.perf_counter()
            self._connection.read(self._version, number * SMALL_BYTES % OBJECT_BYTES, view)
            times.append(time.perf_counter() - started)
        return statistics.median(times) * 1e6

    def _used(self) -> float:
        return time.process_time() + cpu_seconds([self._pid])


def run(work: Path, rounds: int) -> dict[str, Any]:
    (work / "root" / "bench").mkdir(parents=True)
    make_object(work / "root" / "bench" / "object", 0, OBJECT_BYTES)
    cases: dict[str, _Case] = {}
    with ExitStack() as running:
        origin = running.enter_context(dev_origin(work / "root"))
        nodes = {}
        for name, variant in VARIANTS.items():
            like = "-".join(variant.node.values())
            unix = work / f"{like}.sock"
            if like not in nodes:
                nodes[like] = running.enter_context(
                    node(
                        work / like, origin, "--unix", str(unix),
                        module="benchmarks.socket_node", environment=variant.node,
                    )
                )  # fmt: skip
            one = nodes[like]
            lane = RawLane(one.lane)
            version = lane.stat(NAME)
            lane.close()
            tcp = f"{one.lane[0]}:{one.lane[1]}"
            connection = _Tuned(f"unix://{unix}" if variant.unix else tcp, variant)
            running.callback(connection.close)
            cases[name] = _Case(connection, version, one.process.pid)
        return _figures(cases, rounds)


def _figures(cases: dict[str, _Case], rounds: int) -> dict[str, Any]:
    big: dict[str, Callable[[], float]] = {name: case.big for name, case in cases.items()}
    speed = interleaved(big, rounds)
    small = interleaved({name: partial(case.small) for name, case in cases.items()}, rounds)
    figures: dict[str, Any] = {}
    for name, case in cases.items():
        base = UNIX if VARIANTS[name].unix else TCP
        figures[f"{name}, 8 MiB GB/s"] = Figure.of(speed[name]).as_json()
        figures[f"{name}, 8 MiB CPU-s/GiB of both"] = Figure.of(case.cpu[1:]).as_json()
        figures[f"{name}, 64 KiB p50 us"] = Figure.of(small[name]).as_json()
        if name != base:
            figures[f"{name} / base, 8 MiB"] = ratios(speed[name], speed[base]).as_json()
            figures[f"{name} / base, 64 KiB"] = ratios(small[name], small[base]).as_json()
    return figures
