"""The gRPC service of a real server, called with plain generated stubs, as any language would."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion, Source
from cachesvc.disk.nvme import NvmeFile
from cachesvc.origin.base import BypassStream
from cachesvc.origin.memory import Fault
from cachesvc.service import CHUNK_BYTES, SERVICE
from cachesvc.wire import codec
from cachesvc.wire.frame import PROTOCOL_VERSION
from cachesvc.wire.v1 import cache_pb2, cache_pb2_grpc, cluster_pb2
from tests.integration.inprocess import GEOMETRY, InProcessNode, running, verify
from tests.support import NAME, PATIENCE_S, pattern, until

DATA = pattern((3 << 20) + 70_001)
END = len(DATA)
FOREVER = (1 << 64) - 1
RANGES = [
    *((0, FOREVER), (0, 0), (0, 1), (END - 1, FOREVER), (END, FOREVER), (END, END + 9), (5, 5)),
    *((100, 70_000), (16_384, 32_768), (16_383, 32_769), ((1 << 20) - 1, (1 << 20) + 1)),
    *((500_000, 2_600_000), (END - 70_002, END), (0, 1 << 50)),
]


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


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InProcessNode]:
    with running(tmp_path) as node:
        yield node


@pytest.fixture
def stub(node: InProcessNode) -> Iterator[Any]:
    with stubs(node) as stub:
        yield stub


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


# -- right answers


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


# -- errors


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


# -- the token, health, reflection


def test_only_the_right_token_is_served(tmp_path: Path) -> None:
    with running(tmp_path, token="sesame") as node, stubs(node) as stub:
        node.put(DATA)
        hello = cluster_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION, token="sesame")
        for given in (None, "Bearer x", "Bearer ", "sesame2", "Basic sesame"):
            metadata = [("authorization", given)] if given is not None else []
            for call in (
                lambda metadata=metadata: stub.Hello(hello, metadata=metadata),
                lambda metadata=metadata: stub.Stat(stat_of(), metadata=metadata),
                lambda metadata=metadata: list(stub.Read(request_of(), metadata=metadata)),
            ):
                status, code, text = failure(call)
                assert status is grpc.StatusCode.UNAUTHENTICATED
                assert code == cluster_pb2.ERROR_CODE_UNAUTHENTICATED
                assert "sesame" not in text
        assert node.origin.log == []
        right = [("authorization", "Bearer sesame")]
        assert stub.Hello(hello, metadata=right).node_id == "node-1"
        data = [chunk.data for chunk in stub.Read(request_of(), metadata=right)]
        assert b"".join(data) == DATA


def test_health_follows_the_node_and_needs_no_token(tmp_path: Path) -> None:
    states = health_pb2.HealthCheckResponse
    with running(tmp_path, token="sesame") as node, channel(node) as wire:
        stub = health_pb2_grpc.HealthStub(wire)
        for name in ("", SERVICE):
            request = health_pb2.HealthCheckRequest(service=name)
            assert stub.Check(request).status == states.SERVING
        node.service.serving(False)
        for name in ("", SERVICE):
            request = health_pb2.HealthCheckRequest(service=name)
            assert stub.Check(request).status == states.NOT_SERVING


def test_reflection_lists_the_services(node: InProcessNode) -> None:
    with channel(node) as wire:
        stub = reflection_pb2_grpc.ServerReflectionStub(wire)
        ask = reflection_pb2.ServerReflectionRequest
        requests = [ask(list_services=""), ask(file_containing_symbol=SERVICE)]
        services, file = stub.ServerReflectionInfo(iter(requests))
        names = {one.name for one in services.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names
        assert file.file_descriptor_response.file_descriptor_proto


# -- clients that go away


def test_a_client_that_cancels_a_cold_read_stops_its_fill(node: InProcessNode, stub: Any) -> None:
    version = node.put(DATA)
    with node.origin.holding(node.runner):
        call = stub.Read(request_of(version=codec.pack_version(version)))
        until(lambda: node.origin.active_count > 0, "the GETs are under way")
        call.cancel()
        until(lambda: node.origin.active_count == 0, "the GETs are stopped")
    assert node.store.stored_count == 0


@pytest.mark.parametrize("taken_count", [0, 1, 2])
@pytest.mark.parametrize("kind", ["hit", "miss", "bypass"])
def test_a_client_that_leaves_in_mid_answer_leaves_no_pin(
    node: InProcessNode, stub: Any, taken_count: int, kind: str
) -> None:
    data = DATA * 8  # more than a connection takes ahead
    node.put(data)
    if kind == "hit":
        assert read(stub) == data
    for _ in range(5):
        call = stub.Read(request_of(bypass=kind == "bypass"))
        for _ in range(taken_count):
            next(call)
        call.cancel()
    until(lambda: not node.service._calls, "the calls have ended")
    until(node.quiet, "nothing is held")
    assert read(stub, (0, 99)) == data[:99]


@pytest.mark.parametrize("bypass", [False, True])
def test_an_answer_whose_client_left_before_its_first_byte_is_given_back(
    node: InProcessNode, bypass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(DATA)
    with stubs(node) as stub:
        assert read(stub) == DATA
    closed: list[bool] = []
    opening = node.origin.stream

    @asynccontextmanager
    async def stream(*asked: Any) -> AsyncIterator[BypassStream]:
        async with opening(*asked) as opened:
            try:
                yield opened
            finally:
                closed.append(True)

    monkeypatch.setattr(node.origin, "stream", stream)

    class Context:
        """A call whose client has just said goodbye."""

        def invocation_metadata(self) -> tuple[()]:
            return ()

        def peer(self) -> str:
            return "test"

        def add_callback(self, _callback: object) -> bool:
            return True

    answer = node.service._read(request_of(bypass=bypass), Context())  # type: ignore[arg-type]
    next(iter(answer))
    answer.close()  # type: ignore[attr-defined]
    assert node.pinned_count == 0
    assert closed == [True] * bypass


def test_a_stat_that_its_client_gave_up_is_no_defect(node: InProcessNode, stub: Any) -> None:
    node.put(DATA)
    with capture_logs() as logs, node.origin.holding(node.runner):
        call = stub.Stat.future(stat_of())
        until(lambda: len(node.origin.log) == 1, "the HEAD is sent")
        call.cancel()
        until(lambda: node.count("requests_total", op="stat", result="error") == 1, "it ended")
        assert failure(lambda: stub.Stat(stat_of(), timeout=0.05))[0] is (
            grpc.StatusCode.DEADLINE_EXCEEDED
        )
        until(lambda: node.count("requests_total", op="stat", result="error") == 2, "it ended")
    assert read(stub, (0, 9)) == DATA[:9]
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


def test_a_client_that_takes_nothing_for_too_long_is_hung_up_on(tmp_path: Path) -> None:
    with running(tmp_path, stall_s=0.3) as node, stubs(node) as stub:
        data = DATA * 8
        node.put(data)
        assert read(stub) == data
        call = stub.Read(request_of())
        next(call)
        until(lambda: not node.service._calls, "it is hung up on")
        until(node.quiet, "nothing is held")
        call.cancel()


# -- block files that are not what they should be


def damages() -> dict[str, Callable[[Path], None]]:
    def flipped(at: int) -> Callable[[Path], None]:
        def damage(path: Path) -> None:
            with path.open("r+b") as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 0x20]))

        return damage

    def zeroed(path: Path) -> None:
        with path.open("r+b") as file:
            file.write(bytes(1 << 20))

    return {
        "first byte": flipped(0),
        "middle": flipped(500_000),
        "last byte": flipped((1 << 20) - 1),
        "zeroed": zeroed,
        "cut": lambda path: os.truncate(path, 300_000),
        "emptied": lambda path: os.truncate(path, 0),
        "trailer": flipped((1 << 20) + 50),
    }


@pytest.mark.parametrize("damage", damages().values(), ids=damages().keys())
@pytest.mark.parametrize("wanted", [(0, FOREVER), (0, 1 << 20), (490_000, 510_000), (7, 2_000_000)])
def test_a_damaged_block_file_never_gives_a_wrong_byte(
    node: InProcessNode, stub: Any, damage: Callable[[Path], None], wanted: tuple[int, int]
) -> None:
    version = node.put(DATA)
    assert read(stub) == DATA
    damage(node.path_of(node.blocks(version)[0]))
    for _ in range(2):
        assert read(stub, wanted) == DATA[wanted[0] : wanted[1]]
    assert read(stub) == DATA
    assert node.count("device_healthy", device=str(node.directory)) == 1


@pytest.mark.parametrize("wanted", [(0, FOREVER), (5, 90)])
def test_a_disk_that_fails_while_reading_is_replaced_by_the_origin(
    node: InProcessNode, stub: Any, wanted: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(DATA)
    assert read(stub) == DATA

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(NvmeFile, "pread", fail)
    monkeypatch.setattr(NvmeFile, "readinto", fail)
    monkeypatch.setattr(NvmeFile, "readinto", fail)
    assert read(stub, wanted) == DATA[wanted[0] : wanted[1]]
    assert node.count("device_healthy", device=str(node.directory)) == 0


def test_both_lanes_serve_one_store(node: InProcessNode, stub: Any) -> None:
    from tests.integration.inprocess import RawClient

    version: ObjectVersion = node.put(DATA)
    assert read(stub, (0, 1_500_000)) == DATA[:1_500_000]
    with RawClient(node).greeted() as client:
        assert client.read() == DATA
        assert client.stat().version == version
    assert node.origin.landed_bytes == END
