"""Bug: a node took 64 gRPC calls at a time, so that 64 clients on one cold object, and the Hello of
one more, were refused, and read the origin themselves.
"""

from pathlib import Path

from cachesvc.wire.frame import PROTOCOL_VERSION
from cachesvc.wire.v1 import cluster_pb2
from tests.integration.inprocess import running
from tests.integration.service.calls import request_of, stubs
from tests.support import PATIENCE_S, pattern, until

DATA = pattern(100_000)
HERD = 200


def test_a_herd_of_grpc_clients_is_served(tmp_path: Path) -> None:
    with running(tmp_path) as node, stubs(node) as stub:
        node.put(DATA)
        with node.origin.holding(node.runner):
            calls = [stub.Read(request_of(), timeout=PATIENCE_S) for _ in range(HERD)]
            until(lambda: len(node.service._turns) == HERD, "all calls are under way")
            hello = cluster_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION)
            assert stub.Hello(hello, timeout=PATIENCE_S).node_id == "node-1"
        for call in calls:
            assert b"".join(chunk.data for chunk in call) == DATA
