"""An origin that the promises of a cluster are kept against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[DevOrigin]:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as one:
        yield one
