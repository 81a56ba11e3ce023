"""A node in front of moto with a bucket for each file of tests, and a file system of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.integration.cluster import Cluster
from tests.integration.fs.moto import file_system, moto_cluster

if TYPE_CHECKING:
    from cachesvc_client.fs import CacheFileSystem


@pytest.fixture(scope="module")
def bucket(request: pytest.FixtureRequest) -> str:
    """That of the file of tests."""
    return str(request.module.BUCKET)


@pytest.fixture(scope="module")
def cluster(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with moto_cluster(tmp_path_factory.mktemp(bucket)) as cluster:
        fs = file_system(cluster)
        fs.mkdir(bucket)
        fs.client.close()
        yield cluster


@pytest.fixture
def fs(cluster: Cluster, bucket: str) -> Iterator[CacheFileSystem]:
    """At the end no upload is left, and no object."""
    fs = file_system(cluster)
    yield fs
    left = fs.client.ask_origin("s3://", "list_multipart_uploads", Bucket=bucket)
    assert left.get("Uploads", []) == []
    fs.invalidate_cache()
    for path in fs.find(bucket):
        fs.rm_file(path)
    fs.client.close()
