"""The gRPC service gives the right bytes, their version and where they came from."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from cachesvc.core.types import ObjectVersion, Source
from cachesvc.wire import codec
from cachesvc.wire.frame import PROTOCOL_VERSION
from cachesvc.wire.v1 import cluster_pb2
from tests.integration.inprocess import GEOMETRY, InProcessNode
from tests.integration.service.calls import failure, read, request_of, stat_of
from tests.integration.service.sample import DATA, END, RANGES
from tests.support import NAME


@pytest.mark.parametrize("careful", [False, True])
def test_any_range_is_the_slice_of_the_object(
    node: InProcessNode, stub: Any, careful: bool
) -> None:
    node.put(DATA)
    for _ in range(2):
        for start, end in RANGES:
            assert read(stub, (start, end), verify=careful) == DATA[start:end]
    assert node.origin.landed_bytes == END


def test_many_ranges_come_one_after_another(node: InProcessNode, stub: Any) -> None:
    node.put(DATA)
    for _ in range(2):
        assert read(stub, *RANGES) == b"".join(DATA[start:end] for start, end in RANGES)


def test_hello_and_stat_tell_the_settings_and_the_version(node: InProcessNode, stub: Any) -> None:
    version = node.put(DATA)
    welcome = stub.Hello(cluster_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION))
    assert codec.unpack_geometry(welcome.config) == GEOMETRY
    assert [member.node_id for member in welcome.table.members] == ["node-1"]
    answer = stub.Stat(stat_of())
    assert codec.unpack_stat_answer(NAME, answer).version == version
    assert answer.cacheable
    assert answer.epoch == node.cluster.epoch


def test_the_version_and_the_sources_stand_in_the_headers(node: InProcessNode, stub: Any) -> None:
    version = node.put(DATA)
    for source in (Source.ORIGIN, Source.DISK):
        chunks = list(stub.Read(request_of()))
        assert chunks[0].header.version.etag == version.etag
        assert chunks[0].header.cacheable
        found = {segment.source for chunk in chunks for segment in chunk.header.segments}
        assert found == {source}


def test_a_pinned_version_that_is_gone_is_object_changed(node: InProcessNode, stub: Any) -> None:
    old = node.put(DATA)
    assert read(stub, (0, 10)) == DATA[:10]
    node.put(DATA[::-1])
    pinned = codec.pack_version(old)
    assert read(stub, (5, 9), version=pinned) == DATA[5:9]
    status, code, text = failure(lambda: read(stub, (2 << 20, END), version=pinned))
    assert (status, code) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        cluster_pb2.ERROR_CODE_OBJECT_CHANGED,
    )
    assert "s3://bucket/key" in text


def test_an_uncacheable_object_is_read_by_a_bypass(node: InProcessNode, stub: Any) -> None:
    node.put(DATA, etag='W/"weak"')
    chunks = list(stub.Read(request_of()))
    assert [chunk.data for chunk in chunks] == [b"", b""]
    assert not chunks[0].header.cacheable
    for start, end in RANGES:
        assert read(stub, (start, end), bypass=True) == DATA[start:end]
    assert node.store.stored_count == 0


def test_both_lanes_serve_one_store(node: InProcessNode, stub: Any) -> None:
    from tests.integration.inprocess import RawClient

    version: ObjectVersion = node.put(DATA)
    assert read(stub, (0, 1_500_000)) == DATA[:1_500_000]
    with RawClient(node).greeted() as client:
        assert client.read() == DATA
        assert client.stat().version == version
    assert node.origin.landed_bytes == END
