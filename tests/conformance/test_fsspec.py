"""fsspec's own conformance classes, all of them, against a node in front of moto.

S3 has no empty directories, which the classes let a file system say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.fs.moto import moto_cluster

abstract = pytest.importorskip("fsspec.tests.abstract", reason="fsspec is not installed")

from cachesvc_client.fs import CacheFileSystem  # noqa: E402

BUCKET = "conformance"


@pytest.fixture(scope="module")
def filesystem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheFileSystem]:
    with moto_cluster(tmp_path_factory.mktemp("fsspec")) as cluster:
        found = CacheFileSystem(
            cluster.endpoint, origin={"endpoint_url": cluster.origin}, skip_instance_cache=True
        )
        found.mkdir(BUCKET)
        yield found
        found.client.close()


class CacheFixtures(abstract.AbstractFixtures):  # type: ignore[misc, name-defined]
    @pytest.fixture
    def fs(self, filesystem: CacheFileSystem) -> Iterator[CacheFileSystem]:
        filesystem.invalidate_cache()
        yield filesystem
        if filesystem.find(BUCKET):
            filesystem.rm(filesystem.find(BUCKET))

    @pytest.fixture
    def fs_path(self) -> str:
        return f"{BUCKET}/base"

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(abstract.AbstractCopyTests, CacheFixtures):  # type: ignore[misc, name-defined]
    pass


class TestGet(abstract.AbstractGetTests, CacheFixtures):  # type: ignore[misc, name-defined]
    pass


class TestPut(abstract.AbstractPutTests, CacheFixtures):  # type: ignore[misc, name-defined]
    pass


class TestOpen(abstract.AbstractOpenTests, CacheFixtures):  # type: ignore[misc, name-defined]
    pass


class TestPipe(abstract.AbstractPipeTests, CacheFixtures):  # type: ignore[misc, name-defined]
    pass


def test_no_class_is_left_out() -> None:
    public = {name for name in dir(abstract) if name.endswith("Tests")}
    tested: list[Any] = [TestCopy, TestGet, TestPut, TestOpen, TestPipe]
    assert public <= {base.__name__ for one in tested for base in one.__mro__}
