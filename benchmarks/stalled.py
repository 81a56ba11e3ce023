"""Stalled: 1,000 readers each ask for 8 MiB and take nothing of it; what the others notice.

One reader of 4 KiB ranges (Zipf 0.9) is measured without and with them, in turn; `server growth
MiB` is what the server takes more for them (PSS), without the kernel's socket buffers. A
`nice -n 19` spinner runs on each core.
"""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.catalog import LANE_RAW, NGINX_RAW, SYSTEMS, System
from benchmarks.job import MIB, Job, split
from benchmarks.measure import Bench, Outcome, addresses, measure, usable
from benchmarks.memory import pss_mib
from benchmarks.objects import hot_objects
from benchmarks.peers import Server, Servers
from benchmarks.rawlane import RawHttp, RawLane
from benchmarks.spinner import spinners
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import ObjectName
from cachesvc.wire import codec
from cachesvc.wire.frame import Kind, encode

CASE, ALONE, BESIDE = "4 KiB, 1 at once", "alone", "beside 1,000 stalled"
_READER_COUNT, _SETTLE_S, _LIMIT_S = 1000, 1.0, 10
_OBJECT_BYTES = 64 * MIB


def _stalled_lane(server: Server) -> socket.socket:
    lane = RawLane(split(server.addresses["lane"]))
    request = ReadRequest(ObjectName("bench", "stalled-0"), ((0, 8 * MIB),))
    lane.sock.sendall(encode(Kind.READ, codec.pack_read(request, 0)))
    return lane.sock


def _stalled_http(server: Server) -> socket.socket:
    http = RawHttp(split(server.addresses["http"]))
    http.sock.sendall(
        b"GET /bench/stalled-0 HTTP/1.1\r\nHost: bench\r\nRange: bytes=0-8388607\r\n\r\n"
    )
    return http.sock


_STALLS: dict[str, Callable[[Server], socket.socket]] = {
    LANE_RAW: _stalled_lane,
    NGINX_RAW: _stalled_http,
}


def run(bench: Bench, work: Path) -> Outcome:
    outcome = Outcome.noted(__doc__)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    with Servers(bench.environment, work, ("node", "nginx")) as servers:
        hot_objects(servers, "stalled", 1, _OBJECT_BYTES)
        systems = usable(bench, outcome, servers, [SYSTEMS[name] for name in _STALLS])
        with spinners():
            for number in range(bench.rounds):
                for system in systems:
                    figures = _round(bench, servers, system, number)
                    for name, found in figures.items():
                        outcome.add(CASE, f"{system.name}, {name}", found)
    return outcome


def _round(
    bench: Bench, servers: Servers, system: System, number: int
) -> dict[str, dict[str, float]]:
    job = Job(
        "ranges", system.reader, ["stalled-0"], _OBJECT_BYTES, addresses(servers, system),
        range_bytes=4096, zipf=0.9, limit_s=0.1 if bench.quick else 1.0, seed=number,
    )  # fmt: skip
    server = servers.running[system.server]
    alone = measure(bench.environment, [job], server)
    before = pss_mib(server.pids())
    with ExitStack() as exits:
        stalled = [_STALLS[system.name](server) for _ in range(_READER_COUNT)]
        for sock in stalled:
            exits.callback(sock.close)
        time.sleep(_SETTLE_S)
        for sock in stalled:  # all are really being answered
            sock.settimeout(_LIMIT_S)
            sock.recv(1, socket.MSG_PEEK)
        beside = measure(bench.environment, [job], server)
        beside["server growth MiB"] = pss_mib(server.pids()) - before
    return {ALONE: alone, BESIDE: beside}
