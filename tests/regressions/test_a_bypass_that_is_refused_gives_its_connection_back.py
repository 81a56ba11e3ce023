"""A bypass whose answer shows that its range lies beyond the object closes the answer.

Story: only an OriginError closed it. An origin that answered 200 to a range that began beyond the
object's end made it a RangeError, and the connection was never given back.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cachesvc.core.errors import RangeError
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc.origin import bypass

NAME = ObjectName("bucket", "key")


class OpenBody:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_a_range_beyond_the_object_closes_the_answer() -> None:
    body = OpenBody()

    async def head(_name: ObjectName) -> ObjectVersion:
        raise AssertionError("no range is empty here")

    async def get(_range: str | None) -> dict[str, Any]:
        return {
            "Body": body,
            "ContentLength": 10,
            "ETag": '"etag"',
            "ResponseMetadata": {"HTTPStatusCode": 200},
        }

    with pytest.raises(RangeError):
        asyncio.run(bypass.open_stream(head, get, NAME, 20, 30))
    assert body.closed
