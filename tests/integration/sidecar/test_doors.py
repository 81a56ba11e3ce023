"""The doors of a sidecar: files on the Unix lane, S3 over HTTP, writes, and words of writes."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from cachesvc.core.types import ObjectName
from cachesvc.wire import codec
from cachesvc.wire.frame import PREFIX_BYTES, PROTOCOL_VERSION, Kind, encode, parse_prefix
from cachesvc.wire.v1 import cluster_pb2
from tests.integration.cluster import SidecarProcess
from tests.integration.gateway.gate import ask
from tests.integration.sidecar.place import BUCKET, LONG, Place, sidecars, spoil, uri
from tests.support import pattern

pytestmark = pytest.mark.slow

MIB = 1 << 20


def forget(sidecar: SidecarProcess, names: Sequence[ObjectName]) -> None:
    """Tell a sidecar, and nobody else, that objects were written."""
    host, _, port = sidecar.lane.rpartition(":")
    hello = cluster_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION).SerializeToString()
    with socket.create_connection((host, int(port)), timeout=30) as lane:
        for kind, header in ((Kind.HELLO, hello), (Kind.FORGET, codec.pack_forget(names))):
            lane.sendall(encode(kind, header))
            prefix = parse_prefix(lane.recv(PREFIX_BYTES, socket.MSG_WAITALL))
            lane.recv(prefix.header_bytes, socket.MSG_WAITALL)
        assert prefix.kind is Kind.FORGET_ANSWER


def mapped_below(directory: Path) -> bool:
    """Whether this process has files of the directory mapped."""
    return str(directory) in Path("/proc/self/maps").read_text()


def test_an_object_is_mapped_in_place_from_the_sidecars_own_files(place: Place) -> None:
    data = pattern(17 * MIB + 9)
    place.put("mapped", data)
    with place.client() as client:
        with client.map(uri("mapped")) as region:
            assert bytes(region) == data
            assert mapped_below(place.sidecars[0].data)
        assert not mapped_below(place.sidecars[0].data)
    assert not any(mapped_below(node.data) for node in place.ring.nodes)


def test_the_gateway_answers_as_the_origin_does(place: Place) -> None:
    data = pattern(3 * MIB, seed=2)
    place.put("s3", data)
    for target, headers in (
        ("/bucket/s3", {}),
        ("/bucket/s3", {"Range": "bytes=1000000-2000000"}),
        ("/bucket/s3", {"Range": "bytes=-5"}),
        ("/bucket/other", {}),
        ("/bucket?list-type=2&prefix=s3", {}),
    ):
        status, fields, body = ask(place.doors[0], target, headers=headers)
        wanted = ask(place.origin.url, target, headers=headers)
        assert status == wanted[0]
        assert fields.get("etag") == wanted[1].get("etag")
        if status < 300:
            assert body == wanted[2]
    assert ask(place.doors[0], "/bucket/s3")[1]["x-cache-node"] == "sidecar-0"


def test_a_write_through_a_sidecar_is_seen_there_and_by_all_nodes(place: Place) -> None:
    place.put("written", b"old")
    with place.client() as client, place.ring.client() as direct:
        assert client.read(uri("written")) == b"old"
    assert ask(place.doors[0], "/bucket/written", "PUT", body=b"newer")[0] == 200
    with place.client() as client, place.ring.client() as direct:
        assert client.read(uri("written")) == b"newer"
        assert direct.read(uri("written")) == b"newer"
    assert ask(place.doors[0], "/bucket/written")[2] == b"newer"
    assert ask(place.doors[0], "/bucket/written", "DELETE")[0] == 204
    assert ask(place.doors[0], "/bucket/written")[0] == 404


def test_a_sidecar_that_is_told_of_a_write_asks_past_what_the_ring_believes(place: Place) -> None:
    place.put("behind", b"old")
    with place.client(1) as client:
        assert client.read(uri("behind")) == b"old"
    place.put("behind", b"newer")
    with place.client(1) as client:
        assert client.read(uri("behind")) == b"old", "everybody believes it for an hour"
    forget(place.sidecars[1], [ObjectName(BUCKET, "behind")])
    with place.client(1) as client:
        assert client.read(uri("behind")) == b"newer"


def test_a_changed_byte_on_the_sidecars_disk_is_had_from_the_ring_again(place: Place) -> None:
    data = pattern(200_000, seed=5)
    place.put("spoiled", data)
    sidecar = place.sidecars[0]
    with place.client() as client:
        assert client.read(uri("spoiled")) == data
        spoil(sidecar, data, 100_000)
        place.origin.clear_log()
        assert client.read(uri("spoiled")) == data
    assert sidecar.metric("corrupt_blocks_total") == 1
    assert place.asked() == []


def test_a_ring_with_a_secret_is_asked_with_it_and_told_of_writes(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    secret = (*LONG, "--token-file", str(tmp_path / "token"))
    with sidecars(tmp_path, 1, node_options=secret, options=secret) as place:
        place.put("key", b"old")
        with place.client(token="secret") as client, place.ring.client(token="secret") as direct:
            assert client.read(uri("key")) == direct.read(uri("key")) == b"old"
            assert client.sources() == {"peer": 3}
        assert ask(place.doors[0], "/bucket/key", "PUT", body=b"newer")[0] == 200
        with place.client(token="secret") as client, place.ring.client(token="secret") as direct:
            assert client.read(uri("key")) == direct.read(uri("key")) == b"newer"
        with place.client(token="wrong") as stranger, pytest.raises(PermissionError):
            stranger.read(uri("key"))
        sidecar = place.sidecars[0]
        assert sidecar.terminate() == 0
        (tmp_path / "token").write_text("wrong")
        sidecar.start()
        assert sidecar.child is not None
        assert sidecar.child.wait(30) == 2
        assert "token_file: the ring refuses this sidecar" in sidecar.log()
