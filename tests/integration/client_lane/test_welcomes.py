"""What a node says of itself when it is greeted: tokens, errors, the member table; or that it is
none.
"""

from __future__ import annotations

import socket
import threading

import pytest
from cachesvc_client import CacheClient, ProtocolError

from cachesvc.core.errors import CacheError, Overloaded, Unauthenticated
from cachesvc.core.ring import Member, MemberTable
from cachesvc.wire import codec
from tests.integration.client_lane.fake_node import Pair
from tests.integration.client_lane.sample import DATA, URI


def test_a_token_that_no_node_takes_is_refused_by_name(pair: Pair) -> None:
    error = codec.error_message(Unauthenticated("n0: a wrong token"))
    pair.first.error = pair.second.error = error
    with pytest.raises(Unauthenticated, match="a wrong token"):
        pair.client().read(URI)
    with pytest.raises(Unauthenticated, match="a wrong token"):
        pair.client().ring()


def test_a_token_that_one_node_takes_will_do(pair: Pair) -> None:
    pair.first.error = codec.error_message(Unauthenticated("n0: a wrong token"))
    for _ in range(8):  # whichever is asked first
        assert pair.client().read(URI) == DATA


def test_a_welcome_with_another_error_is_passed_over(pair: Pair) -> None:
    pair.first.error = codec.error_message(Overloaded("no more connections"))
    assert pair.client().read(URI) == DATA


def test_another_epoch_in_an_answer_brings_the_new_member_table(pair: Pair) -> None:
    client = pair.client(refresh_ms=1)
    assert client.read(URI) == DATA
    assert client.ring().epoch == pair.first.epoch
    threading.Event().wait(0.005)  # past refresh_ms, the least time between two refreshes
    third = MemberTable([pair.first.member, pair.second.member, Member("n2", "127.0.0.1:1")])
    pair.first.join(third)
    pair.second.join(third)
    assert client.read(URI) == DATA
    assert client.ring().epoch == third.epoch
    assert client.read(URI) == DATA


def test_ring_names_the_endpoint_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    with CacheClient(address) as client, pytest.raises(CacheError, match=address):
        client.ring()


def test_a_peer_that_is_no_node_is_a_protocol_error(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(100)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with CacheClient(address) as client, pytest.raises(ProtocolError, match="something else"):
            client.ring()
        thread.join()
