"""Two nodes and two sidecars for the tests that break nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.sidecar.place import Place, sidecars


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with sidecars(tmp_path_factory.mktemp("place"), sidecar_count=2) as place:
        yield place


@pytest.fixture(autouse=True)
def _log_cleared(request: pytest.FixtureRequest) -> None:
    """What the origin was asked before is another test's."""
    if "place" in request.fixturenames:
        request.getfixturevalue("place").origin.clear_log()
