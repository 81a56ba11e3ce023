"""Who is served by the gRPC service, and what it tells strangers: the token, health, reflection."""

from __future__ import annotations

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cachesvc.service import SERVICE
from cachesvc.wire.frame import PROTOCOL_VERSION
from cachesvc.wire.v1 import cluster_pb2
from tests.integration.inprocess import InProcessNode, running
from tests.integration.service.calls import channel, failure, request_of, stat_of, stubs
from tests.integration.service.sample import DATA


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
