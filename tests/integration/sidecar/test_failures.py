"""What fails behind a sidecar, and what its clients see of that: right bytes, or the reason."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from cachesvc.core.errors import OriginError
from cachesvc.devorigin import Fault, Shape
from tests.integration.sidecar.place import sidecars, spoil, uri
from tests.support import pattern, until

pytestmark = pytest.mark.slow

MIB = 1 << 20
ALWAYS = ("--revalidate", "always")


def test_a_ring_that_is_gone_is_gone_around_and_found_again(tmp_path: Path) -> None:
    data = pattern(9 * MIB)
    with sidecars(tmp_path) as place, place.client() as client:
        sidecar, nodes = place.sidecars[0], place.ring.nodes
        place.put("hot", data)
        assert client.read(uri("hot")) == data
        for node in nodes:
            node.kill()
        place.origin.clear_log()
        assert client.read(uri("hot")) == data
        assert place.asked() == [], "what the sidecar has, it has"
        for key in "abcdefgh":
            place.put(key, data[ord(key) : MIB])
            assert client.read(uri(key)) == data[ord(key) : MIB]
        assert sidecar.metric('ring_requests_total{op="read",result="around"}') == 8
        assert sidecar.metric('ring_requests_total{op="read",result="unavailable"}') <= 2
        for node in nodes:
            node.start()
        for node in nodes:
            node.ready()
        before, keys = sidecar.metric("ring_bytes_total"), count(100)

        def back() -> bool:
            key = f"{next(keys)}"
            place.put(key, data[:1000])
            assert client.read(uri(key)) == data[:1000]
            return sidecar.metric("ring_bytes_total") > before

        until(back, "the ring is read again")
        assert sidecar.terminate() == 0


def test_a_node_that_dies_in_the_middle_of_an_answer_costs_no_byte(tmp_path: Path) -> None:
    data = pattern(24 * MIB)
    with sidecars(tmp_path) as place, place.client() as client:
        place.put("key", data)
        place.origin.shape = Shape(per_connection_mb_s=8)
        with ThreadPoolExecutor(1) as pool:
            read = pool.submit(client.read, uri("key"))
            until(lambda: place.sidecars[0].metric("ring_requests_total") > 0, "it was met")
            until(
                lambda: any(one.body_bytes > MIB for one in place.origin.requests),
                "bytes are on their way",
            )
            place.ring.nodes[0].kill()
            assert read.result() == data
        assert client.sources().keys() <= {"peer", "joined", "disk", "origin"}


def test_an_overwritten_object_is_seen_at_once_where_nothing_may_be_old(tmp_path: Path) -> None:
    opened = sidecars(tmp_path, node_options=ALWAYS, options=ALWAYS)
    with opened as place, place.client() as client:
        for number in range(5):
            data = pattern(9 * MIB, seed=number)
            place.put("key", data)
            assert client.read(uri("key")) == data
        with client.open(uri("key")) as file:
            assert file.read(10) == data[:10]
            place.put("key", b"short")
            assert file.read() == data[10:], "it stays with its version"
        assert client.read(uri("key")) == b"short"


def test_a_changed_byte_on_a_nodes_disk_is_noticed_and_counted(tmp_path: Path) -> None:
    data = pattern(8 * MIB)
    with sidecars(tmp_path, 1) as place, place.client() as client:
        place.put("key", data)
        with place.ring.client() as direct:
            assert direct.read(uri("key")) == data
        node = place.ring.nodes[0]
        spoil(node, data, 5 * MIB)
        assert client.read(uri("key")) == data
        assert place.sidecars[0].metric('ring_requests_total{op="read",result="wrong"}') == 1
        assert node.metric("corrupt_blocks_total") == 1


def test_what_the_origin_fails_with_names_the_sidecar(tmp_path: Path) -> None:
    with sidecars(tmp_path, 1) as place, place.client() as client:
        place.put("key", b"data")
        place.origin.faults = [Fault("500", "*")]
        with pytest.raises(OriginError, match="through the sidecar sidecar-0"):
            client.read(uri("key"))
        place.origin.faults = []
        assert client.read(uri("key")) == b"data"
        place.origin.faults = [Fault("weak_etag", "*")]
        place.put("uncacheable", b"weak")
        assert client.read(uri("uncacheable")) == b"weak"
