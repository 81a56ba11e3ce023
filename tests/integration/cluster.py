"""Real nodes and sidecars for tests: started on free ports, ended by their own handles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cachesvc_client import CacheClient

from cachesvc.devorigin.ports import free_ports

READY_TIMEOUT_S = 60


@dataclass(slots=True)
class NodeProcess:
    """One `cachesvc node`, which can be killed and started again on the same disk and ports."""

    node_id: str
    data: Path
    lane: str
    grpc: str
    admin: str
    members: str
    origin: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[str] | None = None

    def role(self) -> tuple[str, ...]:
        """The command, and whom it belongs with."""
        return "node", "--members", self.members

    def start(self) -> None:
        """Start it; returns at once. Wait with `ready`."""
        command = [
            sys.executable, "-m", "cachesvc.cli", *self.role(), "--node-id", self.node_id,
            "--data-dir", str(self.data), "--lane", self.lane, "--grpc", self.grpc,
            "--admin", self.admin, "--origin-endpoint", self.origin,
            "--log-level", "warning", *self.options,
        ]  # fmt: skip
        with (self.data.parent / f"{self.node_id}.log").open("a") as log:
            self.child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | self.environment,
            )

    def ready(self) -> None:
        assert self.child is not None
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line == "ready\n", f"{self.node_id} said {line!r}; {self.log()}"

    def log(self) -> str:
        return (self.data.parent / f"{self.node_id}.log").read_text()[-2000:]

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self.child is not None
        self.child.kill()
        self.child.communicate()

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        assert self.child is not None
        self.child.send_signal(signal.SIGTERM)
        self.child.communicate(timeout=READY_TIMEOUT_S)
        return self.child.returncode

    def end(self) -> None:
        """kill -9, if it runs, and give back what it was started with."""
        if self.child is not None and self.child.poll() is None:
            self.kill()
        if self.child is not None and self.child.stdout is not None:
            self.child.stdout.close()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; `name` may be the beginning of the line."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith("cachesvc_" + name)
        )


class SidecarProcess(NodeProcess):
    """One `cachesvc sidecar`, whose ring is that of `members`."""

    __slots__ = ()

    def role(self) -> tuple[str, ...]:
        return "sidecar", "--ring", self.members


class Cluster:
    """Some nodes in front of an origin. A context manager; `client()` makes clients."""

    def __init__(
        self,
        work: Path,
        origin: str,
        count: int = 3,
        options: tuple[str, ...] = ("--capacity", "1GiB"),
        environment: dict[str, str] | None = None,
    ) -> None:
        ports = free_ports(count * 3)
        lanes = [f"127.0.0.1:{port}" for port in ports[:count]]
        self.origin = origin
        self.endpoint = ",".join(lanes)
        self.nodes = []
        for number, lane in enumerate(lanes):
            data = work / f"node-{number}"
            data.mkdir(parents=True, exist_ok=True)
            self.nodes.append(
                NodeProcess(
                    f"node-{number}", data, lane, f"127.0.0.1:{ports[count + number]}",
                    f"127.0.0.1:{ports[2 * count + number]}", self.endpoint, origin, options,
                    environment or {},
                )
            )  # fmt: skip

    def client(self, **settings: Any) -> CacheClient:
        return CacheClient(self.endpoint, origin={"endpoint_url": self.origin}, **settings)

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                node.ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            node.end()
