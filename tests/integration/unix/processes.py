"""A real node with a Unix socket, over a development origin, for tests that need more processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cachesvc_client import CacheClient

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster, NodeProcess


@dataclass
class Host:
    """The nodes of a cluster, of which the first has the Unix socket."""

    cluster: Cluster
    origin: DevOrigin
    path: Path

    @property
    def node(self) -> NodeProcess:
        return self.cluster.nodes[0]

    @property
    def endpoint(self) -> str:
        return f"unix://{self.path}"

    def client(self, **settings: Any) -> CacheClient:
        return CacheClient(self.endpoint, origin={"endpoint_url": self.origin.url}, **settings)

    def python(self, code: str) -> subprocess.Popen[str]:
        """A process that runs the code, in which `cache` is a client."""
        head = (
            "import sys\n"
            "from cachesvc_client import CacheClient\n"
            f"cache = CacheClient({self.endpoint!r})\n"
            "def say(*what):\n"
            "    sys.stdout.write(' '.join(map(str, what)) + '\\n')\n"
            "    sys.stdout.flush()\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", head + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def open_count(self) -> int:
        """How many files the node has open, sockets too."""
        assert self.node.child is not None
        return len(os.listdir(f"/proc/{self.node.child.pid}/fd"))


@contextmanager
def host(work: Path, count: int = 1, *options: str) -> Iterator[Host]:
    """Started, and stopped at the end. options: of every node."""
    (work / "origin").mkdir()
    with (
        TemporaryDirectory(prefix="cachesvc-") as folder,  # not pytest's: other users may enter it
        DevOrigin(work / "origin") as origin,
    ):
        Path(folder).chmod(0o711)
        cluster = Cluster(work, origin.url, count, ("--capacity", "512MiB", *options))
        cluster.nodes[0].options += ("--unix", f"{folder}/s")
        with cluster:
            yield Host(cluster, origin, Path(folder, "s"))
