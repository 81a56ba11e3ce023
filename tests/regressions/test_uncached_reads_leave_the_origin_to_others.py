"""Readers of objects that may not be cached hold connections to the origin for as long as they
take; a HEAD must not have to wait for them.

Story: streams and HEADs shared one pool. As many slow readers as it had connections stopped every
version check, and with it every reader, for as long as they liked, while `pending` frames kept the
clients from going elsewhere.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cachesvc.core.errors import Overloaded
from cachesvc.core.types import ObjectName
from cachesvc.devorigin import DevOrigin, Fault
from cachesvc.metrics import Metrics
from cachesvc.origin.s3 import S3Origin, S3Settings
from cachesvc.origin.s3_client import MAX_STREAM_COUNT

STREAMED = ObjectName("b", "streamed")
OTHER = ObjectName("b", "other")


def test_uncached_reads_leave_the_origin_to_others(tmp_path: Path) -> None:
    with DevOrigin(tmp_path) as origin:
        origin.put("b", "streamed", bytes(4 << 20))
        origin.put("b", "other", b"small")
        origin.faults = [Fault("no_etag", key_glob="streamed")]

        async def read() -> None:
            s3 = S3Origin(S3Settings(endpoint_url=origin.url, max_gets=2), Metrics())
            async with AsyncExitStack() as exits:
                exits.push_async_callback(s3.close)
                for _ in range(MAX_STREAM_COUNT):
                    await exits.enter_async_context(s3.stream(STREAMED, 0, None))
                with pytest.raises(Overloaded, match="uncached"):
                    await exits.enter_async_context(s3.stream(STREAMED, 0, None))
                async with asyncio.timeout(20):
                    assert (await s3.head(OTHER)).size_bytes == 5

        asyncio.run(read())
