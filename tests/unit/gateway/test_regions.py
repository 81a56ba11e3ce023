"""Where a bucket is, on AWS: asked once, and again where the answer did not say."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cachesvc.gateway.relay import Relay
from cachesvc.metrics import Metrics
from cachesvc.origin.access import S3Access

ACCESS = S3Access(
    "https://s3.us-east-1.amazonaws.com", "us-east-1", None, ssl.create_default_context()
)


async def _access() -> S3Access:
    return ACCESS


def test_a_region_that_was_not_told_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, str]] = [{}, {"x-amz-bucket-region": "eu-west-1"}]

    @asynccontextmanager
    async def request(*_: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(headers=told.pop(0))

    monkeypatch.setattr(Relay, "_request", request)

    async def places() -> list[tuple[str, str]]:
        relay = Relay(_access, Metrics())
        return [await relay._place(ACCESS, "bucket") for _ in range(3)]

    assert asyncio.run(places()) == [
        ("https://s3.us-east-1.amazonaws.com", "us-east-1"),
        ("https://s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://s3.eu-west-1.amazonaws.com", "eu-west-1"),
    ]
    assert told == []
