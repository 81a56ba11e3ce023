"""Objects that were written through one door: every node forgets what it believed of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc as grpcio
import pytest

from cachesvc.core.errors import InvalidKey, ProtocolError
from cachesvc.core.types import ObjectName
from cachesvc.devorigin import DevOrigin
from cachesvc.devorigin.ports import free_ports
from cachesvc.wire import codec
from cachesvc.wire.frame import Kind
from cachesvc.wire.v1 import cache_pb2
from tests.integration.cluster import Cluster
from tests.integration.gateway.gate import ask
from tests.integration.inprocess import InProcessNode, RawClient, running
from tests.integration.service.calls import stubs
from tests.support import NAME


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InProcessNode]:
    with running(tmp_path) as node:
        yield node


def forget(client: RawClient, header: bytes) -> cache_pb2.ForgetAnswer:
    client.send(Kind.FORGET, header)
    kind, answer, _ = client.frame()
    assert kind is Kind.FORGET_ANSWER
    return codec.parse(cache_pb2.ForgetAnswer, answer)


def test_the_lane_forgets_objects_and_asks_the_origin_again(node: InProcessNode) -> None:
    node.put(b"old")
    with RawClient(node).greeted() as client:
        assert client.read() == b"old"
        node.put(b"newer")
        assert client.read() == b"old"
        others = [ObjectName("bucket", f"other{number}") for number in range(100)]
        assert not forget(client, codec.pack_forget([*others, NAME])).HasField("error")
        assert client.read() == b"newer"


def test_what_cannot_be_forgotten_is_an_error_and_the_connection_goes_on(
    node: InProcessNode,
) -> None:
    node.put(b"data")
    many = cache_pb2.ForgetRequest(
        objects=[cache_pb2.ObjectName(bucket="b", key="k")] * (codec.MAX_FORGET_COUNT + 1)
    )
    wrong = cache_pb2.ForgetRequest(objects=[cache_pb2.ObjectName(bucket="b", key="")])
    with RawClient(node).greeted() as client:
        for message, kind in ((many, ProtocolError), (wrong, InvalidKey)):
            with pytest.raises(kind):
                codec.raise_error(forget(client, message.SerializeToString()).error)
        assert client.read() == b"data"


def test_grpc_forgets_alike(node: InProcessNode) -> None:
    node.put(b"old")
    with RawClient(node).greeted() as client, stubs(node) as stub:
        assert client.read() == b"old"
        node.put(b"newer")
        stub.Forget(cache_pb2.ForgetRequest.FromString(codec.pack_forget([NAME])))
        assert client.read() == b"newer"
        with pytest.raises(grpcio.RpcError) as caught:
            stub.Forget(cache_pb2.ForgetRequest(objects=[cache_pb2.ObjectName()]))
        assert caught.value.code() is grpcio.StatusCode.INVALID_ARGUMENT


def gateways_of(cluster: Cluster) -> list[str]:
    """Addresses of gateways, one for each node, which has not begun yet."""
    doors = [f"127.0.0.1:{port}" for port in free_ports(len(cluster.nodes))]
    for node, door in zip(cluster.nodes, doors, strict=True):
        node.options += ("--s3", door)
    return doors


@pytest.mark.slow
@pytest.mark.parametrize("grpc", [False, True])
def test_what_a_client_invalidates_is_looked_up_anew_by_every_node(
    tmp_path: Path, grpc: bool
) -> None:
    (tmp_path / "origin").mkdir()
    options = ("--capacity", "64MiB", "--revalidate", "never")
    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("bucket", "key", b"old")
        cluster = Cluster(tmp_path, origin.url, options=options)
        doors = gateways_of(cluster)
        if grpc:
            cluster.endpoint = ",".join(f"grpc://{node.grpc}" for node in cluster.nodes)
        with cluster, cluster.client() as client:
            assert [ask(f"http://{door}")[2] for door in doors] == [b"old"] * 3
            origin.put("bucket", "key", b"newer")
            assert [ask(f"http://{door}")[2] for door in doors] == [b"old"] * 3
            client.invalidate("s3://bucket/key")
            assert [ask(f"http://{door}")[2] for door in doors] == [b"newer"] * 3
            cluster.nodes[1].kill()
            origin.put("bucket", "key", b"newest")
            client.invalidate("s3://bucket/key")
            assert [ask(f"http://{doors[number]}")[2] for number in (0, 2)] == [b"newest"] * 2
            assert client.read("s3://bucket/key") == b"newest"


@pytest.mark.slow
def test_a_write_through_one_gateway_is_seen_through_all_nodes(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    (tmp_path / "token").write_text("secret")
    secret = ("--token-file", str(tmp_path / "token"))
    options = ("--capacity", "64MiB", "--revalidate", "never", *secret)
    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("bucket", "key", b"old")
        cluster = Cluster(tmp_path, origin.url, options=options)
        doors = gateways_of(cluster)
        with cluster, cluster.client(token="secret") as client:
            for door in doors:
                assert ask(f"http://{door}")[2] == b"old"
            assert client.read("s3://bucket/key") == b"old"
            assert ask(f"http://{doors[0]}", method="PUT", body=b"newer")[0] == 200
            for door in doors:
                assert ask(f"http://{door}")[2] == b"newer"
            with cluster.client(token="secret") as another:
                assert another.read("s3://bucket/key") == b"newer"
            cluster.nodes[2].kill()
            assert ask(f"http://{doors[0]}", method="PUT", body=b"newest")[0] == 200
            assert ask(f"http://{doors[1]}")[2] == b"newest"
