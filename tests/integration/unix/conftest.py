"""A node with a Unix socket, in the test's process, and clients of it."""

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


@pytest.fixture
def client(node: InProcessNode, tmp_path: Path) -> Iterator[CacheClient]:
    with CacheClient(f"unix://{tmp_path}/node.sock") as client:
        yield client
