"""Calls of the gRPC service with plain generated stubs, as any language would make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from cachesvc.core.types import ObjectName, Source
from cachesvc.service import CHUNK_BYTES
from cachesvc.wire.v1 import cache_pb2, cache_pb2_grpc
from tests.integration.inprocess import InProcessNode, verify
from tests.integration.service.sample import FOREVER
from tests.support import NAME, PATIENCE_S


def plain_stub(wire: grpc.Channel) -> Any:
    return cache_pb2_grpc.CacheStub(wire)  # type: ignore[no-untyped-call]


@contextmanager
def stubs(node: InProcessNode) -> Iterator[Any]:
    with channel(node) as wire:
        yield plain_stub(wire)


@contextmanager
def channel(node: InProcessNode) -> Iterator[grpc.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{node.grpc_port}", options) as wire:
        yield wire


def request_of(
    *ranges: tuple[int, int], name: ObjectName = NAME, **fields: Any
) -> cache_pb2.ReadRequest:
    return cache_pb2.ReadRequest(
        object=cache_pb2.ObjectName(bucket=name.bucket, key=name.key),
        ranges=[cache_pb2.Range(start=start, end=end) for start, end in ranges or ((0, FOREVER),)],
        **fields,
    )


def stat_of(key: str = NAME.key, bucket: str = NAME.bucket) -> cache_pb2.StatRequest:
    return cache_pb2.StatRequest(object=cache_pb2.ObjectName(bucket=bucket, key=key))


def read(stub: Any, *ranges: tuple[int, int], **fields: Any) -> bytes:
    """What a plain client gets: the data, every segment where it belongs."""
    chunks = list(stub.Read(request_of(*ranges, **fields), timeout=PATIENCE_S))
    assert chunks[0].header.version.size_bytes
    assert [chunk.header.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    for chunk in chunks:
        assert len(chunk.data) <= CHUNK_BYTES
        assert sum(segment.length_bytes for segment in chunk.header.segments) == len(chunk.data)
        for segment in chunk.header.segments:
            verify(segment.start, chunk.data, segment.checksums, Source(segment.source))
    return b"".join(chunk.data for chunk in chunks)


def failure(call: Callable[[], Any]) -> tuple[grpc.StatusCode, int, str]:
    """Status, wire code and message of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    assert isinstance(error, grpc.Call)
    trailing = {item.key: item.value for item in error.trailing_metadata()}
    code = int(trailing.get("cachesvc-error-code", 0))
    return error.code(), code, error.details() or ""
