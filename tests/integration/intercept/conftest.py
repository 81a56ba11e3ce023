"""Three nodes in front of a development origin, and programs' own S3 clients, with `install` and
without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3
import cachesvc_client
import pytest
from aiobotocore.session import get_session
from cachesvc_client import Intercepted, intercepted

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.support import pattern

DATA = pattern(20_000_003, 5)
SMALL = pattern(70_000, 6)
BUCKET = "data"
T = TypeVar("T")


@dataclass
class Place:
    """A cluster, its origin, and clients of it."""

    cluster: Cluster
    origin: DevOrigin

    def install(self, **options: Any) -> None:
        origin = {"endpoint_url": self.origin.url}
        cachesvc_client.install(self.cluster.endpoint, origin=origin, **options)

    def boto(self, **options: Any) -> Any:
        return boto3.client("s3", endpoint_url=self.origin.url, **options)

    def aio(self, work: Callable[[Any], Awaitable[T]], **options: Any) -> T:
        """What the work gives with a client of aiobotocore, in a loop of its own."""

        async def run() -> T:
            session = get_session()
            async with session.create_client(
                "s3", endpoint_url=self.origin.url, **options
            ) as client:
                return await work(client)

        return asyncio.run(run())

    def asked(self, *operations: str) -> int:
        """How many of these requests the origin has seen."""
        return sum(1 for one in self.origin.requests if one.operation in operations)


class Counted:
    """What `intercepted` says of the time since this was made."""

    def __init__(self) -> None:
        self._before = intercepted()

    def __getattr__(self, name: str) -> Any:
        return getattr(intercepted(), name) - getattr(self._before, name)

    def passed(self, why: str) -> int:
        return _passed(intercepted(), why) - _passed(self._before, why)


def _passed(counted: Intercepted, why: str) -> int:
    return dict(counted.passed).get(why, 0)


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    work = tmp_path_factory.mktemp("intercept")
    (work / "origin").mkdir()
    with DevOrigin(work / "origin") as origin:
        origin.put(BUCKET, "big", DATA)
        origin.put(BUCKET, "small", SMALL)
        origin.put(BUCKET, "empty", b"")
        origin.put(BUCKET, "lines", b"".join(b"line %d\n" % n for n in range(5000)) + b"last")
        origin.put(BUCKET, "odd/ä b+c%2F?#&=~.txt", b"an odd name")
        with Cluster(work, origin.url) as cluster:
            yield Place(cluster, origin)


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    yield
    cachesvc_client.uninstall()


@pytest.fixture
def counted() -> Counted:
    return Counted()
