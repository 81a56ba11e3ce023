"""A node with a Unix socket, in the test's process, and clients of it by both lanes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cachesvc_client import CacheClient

from tests.integration.inprocess import InProcessNode, running


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InProcessNode]:
    with running(tmp_path / "data", unix=tmp_path / "node.sock") as node:
        yield node


@pytest.fixture(params=["unix", "tcp"])
def client(
    request: pytest.FixtureRequest, node: InProcessNode, tmp_path: Path
) -> Iterator[CacheClient]:
    endpoint = f"unix://{tmp_path}/node.sock"
    with CacheClient(endpoint if request.param == "unix" else f"127.0.0.1:{node.lane_port}") as one:
        yield one
