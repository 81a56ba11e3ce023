"""A development origin with one object, and a gateway before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.gateway.gate import Gate, gateway_over
from tests.support import pattern

DATA = pattern(3 * (1 << 20) + 12_345)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[DevOrigin]:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as started:
        started.put("bucket", "key", DATA)
        yield started


@pytest.fixture
def gate(origin: DevOrigin, tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "node").mkdir()
    with gateway_over(origin.url, tmp_path / "node") as started:
        yield started
