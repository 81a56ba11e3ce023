"""The nodes are told of a write once, also when its answer cannot be passed back.

Story: a client that hung up while the origin's answer was passed to it had every node forget the
object a second time, long after the write: a FORGET to each of them, and a version check, for
nothing. Only a telling that failed itself is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from multidict import CIMultiDict

from cachesvc.core.errors import OriginError
from cachesvc.core.types import ObjectName
from cachesvc.gateway.writing import Writing

TARGET: Any = SimpleNamespace(bucket="bucket", key="key")
REQUEST: Any = SimpleNamespace(
    method="DELETE", headers=CIMultiDict(), content_length=None, can_read_body=False
)


def told(failing: str) -> list[ObjectName]:
    """Which objects the nodes are told of by one write of which something fails, at first."""
    names: list[ObjectName] = []

    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[None]:
        if failing == "relay":
            raise OriginError("no answer")
        yield

    async def back(*_: Any) -> None:
        raise ConnectionResetError("the client is gone")

    async def forget(some: Sequence[ObjectName]) -> None:
        names.extend(some)
        if failing == "forget" and len(names) == 1:
            raise OriginError("not told")

    async def write() -> None:
        relay, passing = SimpleNamespace(open=opened), SimpleNamespace(back=back)
        operation = SimpleNamespace(name="DeleteObject")
        writing = Writing(cast(Any, relay), cast(Any, passing), forget)
        await writing.write(REQUEST, TARGET, cast(Any, operation), None)

    with pytest.raises(OSError, match=r"gone|no answer|not told"):
        asyncio.run(write())
    return names


@pytest.mark.parametrize(("failing", "count"), [("back", 1), ("relay", 1), ("forget", 2)])
def test_a_write_is_told_to_the_nodes_once(failing: str, count: int) -> None:
    assert told(failing) == [ObjectName("bucket", "key")] * count
