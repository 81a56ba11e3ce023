"""A node with a real gRPC server, and a plain stub for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.inprocess import InProcessNode, running
from tests.integration.service.calls import stubs


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InProcessNode]:
    with running(tmp_path) as node:
        yield node


@pytest.fixture
def stub(node: InProcessNode) -> Iterator[Any]:
    with stubs(node) as stub:
        yield stub
