"""The TCP lane and the S3 gateway beside nginx: the same bytes, 8 MiB ranges and 4 KiB ranges, raw
clients, the gateway's that of nginx; and CacheClient, which also checks what it receives.

nginx serves the files of the origin's folder by sendfile; the node serves its block files. Both are
hot in the page cache. 8 MiB ranges are received into a buffer that begins where large bytearrays
and numpy's arrays do, and into one that begins with a page (job.ready_buffer). Throughput in GB/s,
server CPU in s/GiB, latency as p50 in us. While small ranges are read, a `nice -n 19` spinner runs
on each core (spinner.py), and the systems take turns every SMALL_TURN reads, so that all meet the
same moods of the machine.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cachesvc_client import CacheClient

from benchmarks.harness import (
    MIB,
    CpuMeter,
    Figure,
    children,
    dev_origin,
    in_turn,
    interleaved,
    node,
    process,
    ratios,
)  # fmt: skip
from benchmarks.job import ready_buffer
from benchmarks.rawlane import RawHttp, RawLane
from benchmarks.spinner import spinners
from cachesvc.core.types import ObjectName
from cachesvc.devorigin.ports import free_ports
from cachesvc.vouched import SETTLED_NS

OBJECT_COUNT, OBJECT_BYTES, RANGE_BYTES, SMALL_BYTES = 4, 128 * MIB, 8 * MIB, 4096
SMALL_COUNT, SMALL_TURN = 2000, 100
BIG, BIG_AT_PAGE = "8 MiB", "8 MiB to a page"
PLACES = {BIG: 16, BIG_AT_PAGE: 0}  # where the reader's buffer begins, in bytes behind a page
OURS = ("lane", "gateway", "CacheClient")
SMALL = ("lane", "gateway", "nginx")  # one kind of request for a place, so that all are kept
Read = Callable[[int, int, memoryview], object]

_NGINX = """
daemon off; master_process on; worker_processes 1; pid {work}/nginx.pid; error_log {work}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000;
  client_body_temp_path {work}; proxy_temp_path {work}; fastcgi_temp_path {work};
  uwsgi_temp_path {work}; scgi_temp_path {work};
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@contextmanager
def nginx(root: Path, work: Path) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    (port,) = free_ports(1)
    root.chmod(0o755)
    config = work / "nginx.conf"
    config.write_text(
        _NGINX.format(work=work, port=port, root=root).replace(
            "daemon off;", "user root; daemon off;"
        )
    )
    with process("nginx", "-c", str(config), "-p", str(work), ready=False) as child:
        deadline = time.monotonic() + 10
        while True:
            try:
                RawHttp(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield child, ("127.0.0.1", port)


def _big(read: Read, pid: int, cpu: list[float], behind_page: int) -> float:
    """GB/s over all ranges of all objects; adds the server's CPU-s/GiB to `cpu`."""
    buffer = ready_buffer(RANGE_BYTES, behind_page)
    meter, started = CpuMeter(children(pid)), time.perf_counter()
    for number in range(OBJECT_COUNT):
        for start in range(0, OBJECT_BYTES, RANGE_BYTES):
            read(number, start, buffer)
    seconds = time.perf_counter() - started
    total = OBJECT_COUNT * OBJECT_BYTES
    cpu.append(meter.seconds() / (total / (1 << 30)))
    return total / seconds / 1e9


def _small(systems: dict[str, Read]) -> dict[str, float]:
    """p50 of one 4 KiB range in us, by system: all read the same ranges, in turns."""
    buffer = memoryview(bytearray(SMALL_BYTES))
    samples: dict[str, list[float]] = {name: [] for name in systems}
    for first in range(0, SMALL_COUNT, SMALL_TURN):
        for name in in_turn(list(systems), first // SMALL_TURN):
            read, mine = systems[name], samples[name]
            for number in range(first, first + SMALL_TURN):
                start = number * 40503 * SMALL_BYTES % OBJECT_BYTES
                before = time.perf_counter()
                read(number % OBJECT_COUNT, start, buffer)
                mine.append(time.perf_counter() - before)
    return {name: statistics.median(mine) * 1e6 for name, mine in samples.items()}


def _put_in_service(read: Read) -> None:
    """The gateway sends by sendfile what it checked once the file had settled."""
    buffer = ready_buffer(RANGE_BYTES)
    for pause_s in (0.0, 2 * SETTLED_NS / 1e9):
        time.sleep(pause_s)
        for number in range(OBJECT_COUNT):
            for start in range(0, OBJECT_BYTES, RANGE_BYTES):
                read(number, start, buffer)


def run(work: Path, rounds: int) -> dict[str, Any]:
    """The figures, or why there are none."""
    if shutil.which("nginx") is None:
        return {"skipped": "nginx is not installed (apt-get install nginx-light)"}
    root = work / "root"
    (root / "bench").mkdir(parents=True)
    block = bytes(range(256)) * 4096
    for number in range(OBJECT_COUNT):
        with (root / "bench" / str(number)).open("wb") as file:
            for piece in range(OBJECT_BYTES // MIB):
                file.write(piece.to_bytes(8, "big") + block[8:])
    (s3,) = free_ports(1)
    with (
        dev_origin(root) as origin,
        node(work / "data", origin, "--s3", f"127.0.0.1:{s3}") as ours,
        nginx(root, work) as peer,
        closing(RawLane(ours.lane)) as lane,
        closing(RawHttp(peer[1])) as http,
        closing(RawHttp(("127.0.0.1", s3))) as gateway,
        CacheClient(f"{ours.lane[0]}:{ours.lane[1]}") as client,
    ):
        versions = [lane.stat(ObjectName("bench", str(n))) for n in range(OBJECT_COUNT)]
        readers: dict[str, Read] = {
            "lane": lambda number, start, view: lane.read_into(versions[number], start, view),
            "gateway": lambda number, start, view: gateway.read_into(
                f"/bench/{number}", start, view
            ),
            "CacheClient": lambda number, start, view: client.readinto(
                f"s3://bench/{number}", view, start
            ),
            "nginx": lambda number, start, view: http.read_into(f"/bench/{number}", start, view),
        }
        pids = {name: (peer[0] if name == "nginx" else ours.process).pid for name in readers}
        _put_in_service(readers["gateway"])
        figures: dict[str, Any] = {}
        for place, behind_page in PLACES.items():
            figures |= _measured(place, behind_page, readers, pids, rounds)
        with spinners():
            some = {name: readers[name] for name in SMALL}
            small = [_small(some) for _ in range(rounds + 1)][1:]
    for name in SMALL:
        figures[f"4 KiB, {name} p50 us"] = Figure.of([one[name] for one in small]).as_json()
    for name in ("lane", "gateway"):
        small_ratios = Figure.of([one[name] / one["nginx"] for one in small])
        figures[f"4 KiB, {name} / nginx"] = small_ratios.as_json()
    return figures


def _measured(
    place: str, behind_page: int, readers: dict[str, Read], pids: dict[str, int], rounds: int
) -> dict[str, Any]:
    """The figures of 8 MiB ranges, received into a buffer that begins so far behind a page."""
    cpu: dict[str, list[float]] = {name: [] for name in readers}
    speeds = interleaved(
        {
            name: partial(_big, read, pids[name], cpu[name], behind_page)
            for name, read in readers.items()
        },
        rounds,
    )
    figures: dict[str, Any] = {
        f"{place}, {name} GB/s": Figure.of(values).as_json() for name, values in speeds.items()
    }
    for name in OURS:
        figures[f"{place}, {name} / nginx"] = ratios(speeds[name], speeds["nginx"]).as_json()
    for name, values in cpu.items():  # the first round does not count
        figures[f"{place}, {name} server CPU-s/GiB"] = Figure.of(values[1:]).as_json()
    return figures
