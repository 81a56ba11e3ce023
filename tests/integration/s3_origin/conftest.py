"""A development origin that has the object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.s3_origin.servers import DATA, NAME


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[DevOrigin]:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as server:
        server.put(NAME.bucket, NAME.key, DATA)
        yield server
