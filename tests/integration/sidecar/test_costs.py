"""What a read through a sidecar costs at the origin: what it costs at the ring, once for all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration.gateway.gate import ask
from tests.integration.sidecar.place import BUCKET, LONG, Place, fills_over, sidecars, uri
from tests.support import pattern

pytestmark = pytest.mark.slow

MIB = 1 << 20


def test_a_cold_object_costs_one_get_in_all_and_a_hot_one_nothing(place: Place) -> None:
    data = pattern(100_000)
    place.put("cold", data)
    with place.client(0) as first, place.client(1) as second:
        assert first.read(uri("cold")) == data
        assert place.asked() == ["GetObject"]
        assert first.sources() == {"peer": len(data)}
        assert second.read(uri("cold")) == data, "hot in the ring, cold in this sidecar"
        assert second.stat(uri("cold")).size == len(data)
        fills_over(place.sidecars[0])
        before = place.sidecars[0].metric("ring_requests_total")
        assert first.read(uri("cold"), 5, 70_000) == data[5:70_000]
        assert first.sources() == {"peer": len(data), "disk": 69_995}
        assert place.sidecars[0].metric("ring_requests_total") == before
    assert place.asked() == ["GetObject"]


def test_a_cold_get_of_its_gateway_costs_one_get_in_all_and_one_head_for_the_fields(
    place: Place,
) -> None:
    data = pattern(100_000, seed=6)
    place.put("fields", data)
    status, fields, body = ask(place.doors[0], f"/{BUCKET}/fields")
    wanted = ask(place.origin.url, f"/{BUCKET}/fields", "HEAD")[1]
    assert (status, body) == (200, data)
    assert (fields["etag"], fields["content-type"]) == (wanted["etag"], wanted["content-type"])
    assert place.asked() == ["GetObject", "HeadObject", "HeadObject"], "the last is the test's own"


def test_the_bytes_come_from_the_ring_and_are_counted_as_such(place: Place) -> None:
    data = pattern(9 * MIB + 5, seed=2)
    place.put("large", data)
    sidecar = place.sidecars[0]
    fills_over(sidecar)
    before = sidecar.metric("ring_bytes_total")
    with place.client() as client:
        assert client.read(uri("large")) == data
    fills_over(sidecar)
    assert sidecar.metric("ring_bytes_total") - before == len(data)
    assert sidecar.metric("origin_bytes_total") == 0
    assert sidecar.metric('read_bytes_total{source="peer"}') >= len(data)


def test_64_clients_of_two_sidecars_cost_one_get_for_each_extent(place: Place) -> None:
    data = pattern(10 * MIB + 3, seed=3)
    place.put("crowded", data)
    ranges = [(0, 70_000), (5 * MIB, 5 * MIB + 100), (8 * MIB - 10, 8 * MIB + 10)]

    def read(number: int) -> list[bytes]:
        with place.client(number % 2) as client:
            return client.read_ranges(uri("crowded"), ranges)

    with ThreadPoolExecutor(64) as pool:
        for found in pool.map(read, range(64)):
            assert found == [data[start:end] for start, end in ranges]
    gets = sorted(one.range for one in place.origin.requests if one.range is not None)
    assert gets
    assert all(end <= start for (_, end), (start, _) in pairwise(gets)), gets


def test_objects_that_do_not_exist_are_not_found_and_ranges_beyond_the_end_refused(
    place: Place,
) -> None:
    place.put("short", b"0123456789")
    with place.client() as client:
        with pytest.raises(FileNotFoundError, match=uri("nothing")):
            client.read(uri("nothing"))
        with pytest.raises(ValueError, match=uri("short")):
            client.read(uri("short"), 11, 12)
        assert client.read(uri("short"), 3) == b"3456789"
        place.put("nothing", b"now it is")
        assert client.stat(uri("short")).size == 10


def test_a_small_store_gives_room_and_asks_the_ring_again(tmp_path: Path) -> None:
    data = pattern(40 * MIB, seed=4)
    with sidecars(tmp_path, 1, options=(*LONG, "--capacity", "16MiB")) as place:
        place.put("wide", data)
        with place.client() as client:
            for _ in range(2):
                assert client.read(uri("wide")) == data
        sidecar = place.sidecars[0]
        assert sidecar.metric("stored_bytes") <= 16 * MIB
        assert sidecar.metric("evicted_bytes_total") > 0
        assert sum(one.body_bytes for one in place.origin.requests) == len(data)
