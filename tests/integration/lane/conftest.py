"""A node with a real lane; the same with the object stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.core.types import ObjectVersion
from tests.integration.inprocess import InProcessNode, RawClient, running
from tests.integration.lane.sample import DATA


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InProcessNode]:
    with running(tmp_path) as node:
        yield node


@pytest.fixture
def filled(node: InProcessNode) -> tuple[InProcessNode, ObjectVersion]:
    """A node that has the whole object."""
    version = node.put(DATA)
    with RawClient(node).greeted() as client:
        assert client.read() == DATA
    return node, version
