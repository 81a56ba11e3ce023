"""Two nodes and two sidecars for the tests that break nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.integration.sidecar.place import Place, sidecars, uri
from tests.support import until


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with sidecars(tmp_path_factory.mktemp("place"), sidecar_count=2) as place:
        for number in range(2):
            until(partial(_met, place, number), "the sidecar has met its ring")
        yield place


def _met(place: Place, number: int) -> bool:
    """Whether an object that nobody has read yet comes from the ring: soon after the start, on a
    busy machine, the ring may be too slow, and S3 is read instead.
    """
    place.put(key := f"met/{len(place.origin.requests)}", b"met")
    with place.client(number) as client:
        assert client.read(uri(key)) == b"met"
        return set(client.sources()) == {"peer"}


@pytest.fixture(autouse=True)
def _log_cleared(request: pytest.FixtureRequest) -> None:
    """What the origin was asked before is another test's."""
    if "place" in request.fixturenames:
        request.getfixturevalue("place").origin.clear_log()
