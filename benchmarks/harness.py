"""What every benchmark needs: processes on loopback, interleaved rounds, medians.

Rules: systems that are compared run in the same run, one after another, round after round, so that
a noisy machine is noisy for all; a figure is the median over the rounds, with its range; every
process is ended by its own handle.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.job import MIB
from cachesvc.devorigin.ports import free_ports

__all__ = [
    "ENVIRONMENT", "MIB", "CpuMeter", "Figure", "RunningNode", "cachesvc", "children",
    "cpu_seconds", "dev_origin", "in_turn", "interleaved", "node", "process", "ratios", "timed",
]  # fmt: skip

T = TypeVar("T")

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value: median, lowest and highest over the rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        return cls(statistics.median(values), min(values), max(values))

    def as_json(self) -> dict[str, float]:
        return {"median": self.median, "lowest": self.lowest, "highest": self.highest}


@contextmanager
def process(
    *command: str, ready: bool = True, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A child process, until the end of the block; if `ready`, it has printed that line."""
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
    )
    try:
        if ready:
            assert child.stdout is not None
            line = child.stdout.readline()
            if line.strip() != "ready":
                raise RuntimeError(f"{' '.join(command[:4])}... did not get ready: {line!r}")
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        assert child.stdout is not None
        child.stdout.close()


@contextmanager
def dev_origin(root: Path, *options: str) -> Iterator[str]:
    """`cachesvc devorigin` on a folder; its URL."""
    (port,) = free_ports(1)
    listen = f"127.0.0.1:{port}"
    with process(*cachesvc("devorigin", "--root", str(root), "--listen", listen, *options)):
        yield f"http://{listen}"


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node of a benchmark."""

    process: subprocess.Popen[str]
    lane: tuple[str, int]
    grpc: str


@contextmanager
def node(
    data: Path,
    origin: str,
    *options: str,
    module: str = "cachesvc.cli",
    environment: dict[str, str] | None = None,
) -> Iterator[RunningNode]:
    """`cachesvc node`, alone in its cluster; `module` is the program."""
    lane, grpc, admin = (f"127.0.0.1:{port}" for port in free_ports(3))
    command = cachesvc(
        "node", "--node-id", "bench", "--data-dir", str(data), "--capacity", "4GiB",
        "--lane", lane, "--grpc", grpc, "--admin", admin, "--origin-endpoint", origin,
        "--revalidate", "never", "--log-level", "error", *options, module=module,
    )  # fmt: skip
    with process(*command, environment=environment) as child:
        host, _, port = lane.rpartition(":")
        yield RunningNode(child, (host, int(port)), grpc)


def cachesvc(*arguments: str, module: str = "cachesvc.cli") -> tuple[str, ...]:
    """The command line. PYTHONPATH decides which tree it is of, not the working directory."""
    safe = ("-P",) if module.startswith("cachesvc.") else ()
    return (sys.executable, *safe, "-m", module, *arguments)


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that processes have used so far, user and system together.

    By clock_getcpuclockid(3), whose ids are made like this on Linux: /proc counts in 10 ms.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


class CpuMeter:
    """CPU time that processes use from now on.

    What one of them used that has ended by the time of the look is left out: nginx has a child for
    the start of its cache, which ends after a minute.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._before = _cpu_of_living(pids)

    def seconds(self) -> float:
        """So far, all together."""
        now = _cpu_of_living(self._before)
        return sum(used - self._before[pid] for pid, used in now.items())


def _cpu_of_living(pids: Iterable[int]) -> dict[int, float]:
    used = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            used[pid] = cpu_seconds([pid])
    return used


def children(pid: int) -> list[int]:
    """A process and its children."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in below)]


def in_turn(systems: list[T], number: int) -> list[T]:
    """The systems in the order of a round: each begins one, round after round."""
    first = number % max(1, len(systems))
    return systems[first:] + systems[:first]


def interleaved(systems: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each system once a round, after one round that does not count. What they return is kept."""
    for run in systems.values():
        run()
    results: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(rounds):
        for name in in_turn(list(systems), number):
            results[name].append(systems[name]())
    return results


def timed(work: Callable[[], None]) -> float:
    """Seconds of wall time."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Ours over theirs, round by round."""
    return Figure.of([a / b for a, b in zip(ours, theirs, strict=True)])


@contextmanager
def forked(serve: Callable[[socket.socket], None]) -> Iterator[tuple[tuple[str, int], int]]:
    """Address and id of a process of its own, so that its CPU is not counted, that serves what
    connects to the listener that it is given, until the end.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            serve(listener)
        finally:
            os._exit(0)
    try:
        yield listener.getsockname(), child
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        listener.close()
