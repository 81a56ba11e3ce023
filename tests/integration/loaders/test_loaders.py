"""Every loader of the four tables, by the three properties that make a cache worth having."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration.loaders import client, file_system, gateway, intercept
from tests.integration.loaders.conftest import Place
from tests.integration.loaders.loader import Loader
from tests.integration.loaders.workers import COUNT

ROOT = Path(__file__).parents[3]
DOORS = {
    "gateway": gateway.LOADERS,
    "fsspec": file_system.LOADERS,
    "client": client.LOADERS,
    "intercept": intercept.LOADERS,
}
TABLE = [
    pytest.param(loader, f"{door}-{loader.name}", id=f"{door}-{loader.name}")
    for door, loaders in DOORS.items()
    for loader in loaders
]
pytestmark = pytest.mark.slow


def test_only_what_the_dev_extra_does_not_name_may_be_missing() -> None:
    """So that no loader is skipped where the others are tested."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[\[<>=; ]", one)[0] for one in extras["optional-dependencies"]["dev"]}
    needed = {need for loaders in DOORS.values() for loader in loaders for need in loader.needs}
    assert {"boto3", "s3fs", "pandas", "pyarrow", "polars"} <= needed & named
    assert [name for name in sorted(needed & named) if find_spec(name) is None] == []


@pytest.fixture
def _present(loader: Loader) -> None:
    if why := loader.missing():
        pytest.skip(why)


@pytest.mark.usefixtures("_present")
@pytest.mark.parametrize(("loader", "folder"), TABLE)
def test_it_reads_the_bytes_that_it_reads_directly_and_again_without_the_origin(
    place: Place, loader: Loader, folder: str
) -> None:
    place.put(folder, loader.objects())
    first = place.workers.read(loader.read, place.cached, folder)
    asked = len(place.gets(folder))
    assert asked, "it was read from somewhere else"
    second = place.workers.read(loader.read, place.cached, folder)
    assert len(place.gets(folder)) == asked, "the second read went to the origin"
    directly = place.workers.read(loader.direct or loader.read, place.direct, folder)
    assert directly
    assert [first, second] == [directly] * 2


@pytest.mark.usefixtures("_present")
@pytest.mark.parametrize(("loader", "folder"), TABLE)
def test_eight_processes_read_what_is_cold_for_one_get_an_extent(
    place: Place, loader: Loader, folder: str
) -> None:
    folder += "-cold"
    objects = loader.objects()
    place.put(folder, objects)
    before = place.fetched_bytes()
    found = place.workers.read_all(loader.read, place.cached, folder, loader.needs)
    gets, fetched = place.gets(folder), place.fetched_bytes()
    directly = place.workers.read(loader.direct or loader.read, place.direct, folder)
    assert found == [directly] * COUNT
    assert gets
    for key, data in objects.items():
        ours = sorted(one.range or (0, len(data)) for one in gets if one.key == f"{folder}/{key}")
        twice = [(a, b) for a, b in pairwise(ours) if b[0] < a[1]]
        assert not twice, f"{key}: bytes were fetched twice: {twice}; {before}, {fetched} by nodes"
