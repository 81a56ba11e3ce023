"""Every failure of the gRPC service has its status and its code, and says nothing it should not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from cachesvc.core.types import ByteRange, ObjectName
from cachesvc.origin.memory import Fault
from cachesvc.service import SERVICE
from cachesvc.wire.v1 import cluster_pb2
from tests.integration.inprocess import InProcessNode
from tests.integration.service.calls import channel, failure, plain_stub, read, stat_of
from tests.integration.service.sample import DATA, END, FOREVER


def test_every_failure_has_its_status_and_its_code(node: InProcessNode, stub: Any) -> None:
    node.put(DATA)
    codes, wire = grpc.StatusCode, cluster_pb2
    none = ObjectName("bucket", "none")
    cases: list[tuple[Callable[[], Any], grpc.StatusCode, int]] = [
        (lambda: stub.Stat(stat_of("none")), codes.NOT_FOUND, wire.ERROR_CODE_OBJECT_NOT_FOUND),
        (lambda: read(stub, name=none), codes.NOT_FOUND, wire.ERROR_CODE_OBJECT_NOT_FOUND),
        (lambda: read(stub, (END + 1, FOREVER)), codes.OUT_OF_RANGE, wire.ERROR_CODE_RANGE),
        (lambda: read(stub, (9, 5)), codes.OUT_OF_RANGE, wire.ERROR_CODE_RANGE),
        (lambda: read(stub, *[(0, 1)] * 1025), codes.OUT_OF_RANGE, wire.ERROR_CODE_RANGE),
        (lambda: stub.Stat(stat_of("")), codes.INVALID_ARGUMENT, wire.ERROR_CODE_INVALID_KEY),
        (lambda: stub.Stat(stat_of("a\0")), codes.INVALID_ARGUMENT, wire.ERROR_CODE_INVALID_KEY),
        (
            lambda: stub.Hello(cluster_pb2.HelloRequest(protocol_version=9)),
            codes.INVALID_ARGUMENT,
            wire.ERROR_CODE_PROTOCOL,
        ),
    ]
    for call, status, code in cases:
        assert failure(call)[:2] == (status, code)
    assert read(stub, (0, 9)) == DATA[:9]


def test_bytes_that_are_no_message_are_an_error_and_no_harm(node: InProcessNode) -> None:
    node.put(DATA)
    with channel(node) as wire:
        raw = wire.unary_stream(f"/{SERVICE}/Read", bytes, bytes)
        with pytest.raises(grpc.RpcError):
            list(raw(b"\xff\xff\xff"))
        assert failure(lambda: wire.unary_unary(f"/{SERVICE}/Nothing", bytes, bytes)(b""))[0] is (
            grpc.StatusCode.UNIMPLEMENTED
        )
        assert read(plain_stub(wire), (0, 9)) == DATA[:9]


def test_a_fill_that_breaks_off_is_an_error_and_no_short_answer(
    node: InProcessNode, stub: Any
) -> None:
    version = node.put(DATA)
    third = node.blocks(version)[2].start

    async def before(op: str, name: ObjectName, wanted: ByteRange | None) -> Fault | None:
        return Fault(1000) if op == "get" and wanted and wanted.start >= third else None

    node.origin.before = before
    status, code, text = failure(lambda: read(stub))
    assert (status, code) == (grpc.StatusCode.UNAVAILABLE, cluster_pb2.ERROR_CODE_ORIGIN)
    assert "s3://bucket/key" in text
    assert read(stub, (0, third)) == DATA[:third]


def test_a_defect_says_nothing_of_itself(node: InProcessNode, stub: Any) -> None:
    node.put(DATA)

    async def before(op: str, name: ObjectName, wanted: ByteRange | None) -> Fault | None:
        raise ZeroDivisionError("the secret")

    node.origin.before = before
    for call in (lambda: stub.Stat(stat_of()), lambda: read(stub)):
        status, code, text = failure(call)
        assert (status, code) == (grpc.StatusCode.INTERNAL, cluster_pb2.ERROR_CODE_INTERNAL)
        assert "secret" not in text
