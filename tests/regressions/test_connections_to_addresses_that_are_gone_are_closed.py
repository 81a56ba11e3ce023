"""Bug: idle connections stayed, half closed, for every address that any member ever had: a client
of a cluster whose pods were replaced one by one lost descriptors until its end.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from cachesvc_client import CacheClient

from cachesvc.core.ring import MemberTable
from tests.integration.client_lane.fake_node import FakeNode
from tests.integration.client_lane.sample import DATA, URI

ORIGIN = {"endpoint_url": "http://127.0.0.1:1", "anonymous": True}


def idle_addresses(client: CacheClient) -> dict[str, int]:
    assert client._engine is not None
    lane = client._engine._transport
    return {address: len(kept) for address, kept in lane._idle.items() if kept}  # type: ignore[union-attr]


def test_what_idles_is_closed_when_its_address_is_no_members_any_more() -> None:
    with contextlib.ExitStack() as exits:
        seed = FakeNode("seed")
        exits.callback(seed.stop)
        client = CacheClient(seed.address, origin=ORIGIN, refresh_ms=1)
        exits.callback(client.close)
        for _ in range(3):  # the same node, each time at another address
            moving = FakeNode("moving")
            exits.callback(moving.stop)
            table = MemberTable([moving.member])
            seed.join(table)
            moving.join(table)
            client.ring()
            with ThreadPoolExecutor(4) as pool:
                read = list(pool.map(lambda _: client.read(URI, 0, 5000), range(16)))
            assert read == [DATA[:5000]] * 16
            assert set(idle_addresses(client)) == {moving.address}
            assert idle_addresses(client)[moving.address] <= 5


def test_who_asks_for_the_ring_again_and_again_holds_no_more_connections() -> None:
    with contextlib.ExitStack() as exits:
        node = FakeNode("alone")
        exits.callback(node.stop)
        node.join(MemberTable([node.member]))
        client = CacheClient(node.address, origin=ORIGIN, refresh_ms=1)
        exits.callback(client.close)
        for _ in range(5):
            client.ring()
            assert client.read(URI, 0, 5000) == DATA[:5000]
        assert idle_addresses(client) == {node.address: 1}
