"""The processes of the demo: an origin in this process, three nodes beside it, all on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cachesvc.devorigin import DevOrigin, Shape
from cachesvc.devorigin.ports import free_ports

NODE_COUNT = 3
SHAPE = Shape(first_byte_ms=30, per_connection_mb_s=90)
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "demo",
    "AWS_SECRET_ACCESS_KEY": "demo",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_START_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class DemoCluster:
    """Where everything is. `endpoint` is what a client is given."""

    origin: DevOrigin
    endpoint: str
    admins: tuple[str, ...]

    def bytes_by_source(self) -> dict[str, int]:
        """What all nodes together have answered so far, by where it came from."""
        total: dict[str, int] = {}
        for admin in self.admins:
            with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            for line in text.splitlines():
                if line.startswith("cachesvc_read_bytes_total{"):
                    label, _, value = line.rpartition(" ")
                    source = label.split('"')[1]
                    total[source] = total.get(source, 0) + int(float(value))
        return total


@contextmanager
def demo_cluster(root: Path, data: Path) -> Iterator[DemoCluster]:
    """An origin that serves `root`, and nodes that keep their blocks below `data`."""
    with ExitStack() as exits:
        origin = exits.enter_context(DevOrigin(root, shape=SHAPE))
        lanes = [f"127.0.0.1:{port}" for port in free_ports(NODE_COUNT * 3)]
        lanes, grpcs, admins = (
            lanes[:NODE_COUNT],
            lanes[NODE_COUNT:-NODE_COUNT],
            lanes[-NODE_COUNT:],
        )
        nodes = [
            _start(
                exits, "--node-id", f"demo-{number}", "--data-dir", str(data / f"node-{number}"),
                "--capacity", "1GiB", "--lane", lanes[number], "--grpc", grpcs[number],
                "--admin", admins[number], "--members", ",".join(lanes),
                "--origin-endpoint", origin.url, "--revalidate", "1m", "--log-level", "error",
            )
            for number in range(NODE_COUNT)
        ]  # fmt: skip
        for child in nodes:
            _await_ready(child)
        yield DemoCluster(origin, ",".join(lanes), tuple(admins))


def _start(exits: ExitStack, *options: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "cachesvc.cli", "node", *options],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    exits.callback(_stop, child)
    return child


def _await_ready(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    if child.stdout.readline().strip() != "ready":
        raise RuntimeError(
            f"a node did not get ready; it ended with {child.wait(_START_TIMEOUT_S)}"
        )


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(_START_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    finally:
        if child.stdout is not None:
            child.stdout.close()
