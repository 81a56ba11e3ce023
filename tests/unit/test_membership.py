"""The member table: who may be in it, what changes it, and that no bad address ends discovery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cachesvc.core.errors import ProtocolError, Unauthenticated
from cachesvc.core.ring import Member
from cachesvc.core.types import Geometry
from cachesvc.membership.cluster import Cluster
from cachesvc.membership.static import MemberList, StaticMembership
from cachesvc.membership.unmet import GRACE_S, Unmet
from cachesvc.wire import codec
from cachesvc.wire.frame import PROTOCOL_VERSION
from cachesvc.wire.v1 import cluster_pb2

ME = Member("me", "127.0.0.1:1001")
OTHER = Member("other", "127.0.0.1:1002", "127.0.0.1:2002", 2)


def hello(token: str = "", member: Member | None = None) -> cluster_pb2.HelloRequest:
    packed = None if member is None else codec.pack_member(member)
    return cluster_pb2.HelloRequest(
        protocol_version=PROTOCOL_VERSION, token=token, client_id="test", member=packed
    )


def ids(cluster: Cluster) -> list[str]:
    return [member.node_id for member in cluster.table.members]


def test_a_node_that_introduces_itself_is_in_the_table_that_it_is_given() -> None:
    cluster = Cluster(ME, Geometry())
    before = cluster.epoch
    welcome = cluster.welcome(hello(member=OTHER))
    assert [member.node_id for member in welcome.table.members] == ["me", "other"]
    assert welcome.table.epoch == cluster.epoch != before
    assert codec.unpack_table(welcome.table) == cluster.table
    assert codec.unpack_geometry(welcome.config) == Geometry()


def test_an_id_at_a_new_address_moves_and_a_new_id_at_an_address_replaces_the_old_one() -> None:
    cluster = Cluster(ME, Geometry())
    cluster.learn(OTHER)
    cluster.learn(Member("other", "127.0.0.1:1003"))
    assert [m.lane_address for m in cluster.table.members] == ["127.0.0.1:1001", "127.0.0.1:1003"]
    cluster.learn(Member("third", "127.0.0.1:1003"))
    assert ids(cluster) == ["me", "third"]


def test_nobody_takes_the_place_of_this_node() -> None:
    cluster = Cluster(ME, Geometry())
    cluster.learn(Member("me", "127.0.0.1:9999"))
    cluster.learn(Member("thief", ME.lane_address))
    assert next(m for m in cluster.table.members if m.node_id == "me") == ME


def test_who_is_not_in_the_member_list_is_refused_and_who_leaves_it_is_forgotten() -> None:
    cluster = Cluster(ME, Geometry())
    members = MemberList(f"{ME.lane_address},{OTHER.lane_address}")
    StaticMembership(cluster, members)
    cluster.learn(OTHER)
    with pytest.raises(ProtocolError, match="not in my member list"):
        cluster.learn(Member("stranger", "127.0.0.1:1009"))
    cluster.keep_only({ME.lane_address})
    assert ids(cluster) == ["me"]


@pytest.mark.parametrize("token", ["", "wrong", "secre", "secret "])
def test_a_hello_without_the_token_learns_nobody(token: str) -> None:
    cluster = Cluster(ME, Geometry(), "secret")
    with pytest.raises(Unauthenticated, match="by --token, token= or CACHESVC_TOKEN"):
        cluster.welcome(hello(token, OTHER))
    assert ids(cluster) == ["me"]
    assert cluster.welcome(hello("secret", OTHER)).node_id == "me"


def test_another_protocol_version_is_refused_by_number() -> None:
    strange = cluster_pb2.HelloRequest(protocol_version=99)
    with pytest.raises(ProtocolError, match="99"):
        Cluster(ME, Geometry()).welcome(strange)


def test_the_table_of_the_last_run_is_taken_up_after_a_restart(tmp_path: Path) -> None:
    memory = tmp_path / "members.json"
    before = Cluster(ME, Geometry(), memory=memory)
    before.learn(OTHER)
    after = Cluster(ME, Geometry(), memory=memory)
    after.remember()
    assert after.table == before.table


@pytest.mark.parametrize("content", ["", "{", "[[1]]", '[["a"]]', "null", '[["a","b",1,2,3,4]]'])
def test_a_damaged_memory_of_the_table_is_ignored(tmp_path: Path, content: str) -> None:
    memory = tmp_path / "members.json"
    memory.write_text(content)
    cluster = Cluster(ME, Geometry(), memory=memory)
    cluster.remember()
    assert ids(cluster) == ["me"]
    cluster.learn(OTHER)
    assert len(json.loads(memory.read_text())) == 2


def test_a_member_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "members"
    file.write_text("127.0.0.1:1001\n# a comment\n127.0.0.1:1002  # the other\n\n")
    members = MemberList(f"file:{file}")
    assert members.addresses == ("127.0.0.1:1001", "127.0.0.1:1002")
    assert not members.changed()
    fresh = tmp_path / "fresh"
    fresh.write_text("127.0.0.1:1001\n")
    fresh.replace(file)
    assert members.changed()
    assert list(members.addresses) == ["127.0.0.1:1001"]


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "a:0", "a:65536", "a:1,,b:2", "a:b"])
def test_what_is_no_member_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|members"):
        MemberList(text)


def test_an_address_that_no_resolver_takes_does_not_end_a_round() -> None:
    cluster = Cluster(ME, Geometry())
    members = MemberList(f"{ME.lane_address},host..name:80,127.0.0.1:9")

    async def one_round() -> None:
        await StaticMembership(cluster, members).round()

    asyncio.run(one_round())
    assert ids(cluster) == ["me"]


def test_an_address_where_nobody_is_ever_met_is_told_of_after_a_while() -> None:
    now = 100.0
    unmet = Unmet(lambda: now)
    with capture_logs() as logs:
        unmet.failed("b:2")
        unmet.failed("a:1", "it is another cluster's")
        assert unmet.trouble() == ""
        now += GRACE_S
        for _ in range(2):
            unmet.failed("b:2")
            assert unmet.trouble() == (
                "member a:1 was never met: it is another cluster's;"
                " member b:2 was never met: nobody answers there"
            )
    assert [entry["address"] for entry in logs] == ["b:2"], "once"
    unmet.keep_to(["a:1"])
    assert "b:2" not in unmet.trouble()
    unmet.failed("b:2")
    assert "b:2" not in unmet.trouble(), "its time begins anew"


def test_whoever_says_hello_hears_of_members_that_were_never_met(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cachesvc.membership.unmet.GRACE_S", 0.0)
    cluster = Cluster(ME, Geometry())
    cluster.trouble = "no credentials"
    membership = StaticMembership(cluster, MemberList(f"{ME.lane_address},127.0.0.1:9,a..b:80"))
    with capture_logs() as logs:
        for _ in range(2):
            asyncio.run(membership.round())
    told = cluster.welcome(hello()).trouble
    assert told.startswith("no credentials; member 127.0.0.1:9 was never met: nobody answers there")
    assert "member a..b:80 was never met: " in told
    assert sorted(entry["event"] for entry in logs) == ["member never met", "member refused"]
    cluster.learn(Member("nine", "127.0.0.1:9"))
    asyncio.run(membership.round())
    assert "127.0.0.1:9" not in cluster.welcome(hello()).trouble, "it was met, and is down"


def test_many_unmet_members_are_told_of_in_few_words() -> None:
    now = 100.0
    unmet = Unmet(lambda: now)
    for number in range(200):
        unmet.failed(f"node-{number}:7071", "x" * 5000)
    now += GRACE_S
    assert unmet.trouble().endswith("; and 195 more")
    assert len(unmet.trouble()) < 2500


def test_who_answers_at_a_second_address_is_not_unmet() -> None:
    now = 100.0
    unmet = Unmet(lambda: now)
    unmet.failed("alias:1")
    unmet.met("alias:1")
    now += GRACE_S
    assert unmet.trouble() == ""


def test_a_node_with_this_nodes_id_is_a_member_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cachesvc.membership.unmet.GRACE_S", 0.0)
    twin = Cluster(Member(ME.node_id, "127.0.0.1:1003"), Geometry())
    cluster = Cluster(ME, Geometry())
    membership = StaticMembership(cluster, MemberList(f"{ME.lane_address},127.0.0.1:1003"))

    @asynccontextmanager
    async def greeting(*_: object, **__: object) -> AsyncIterator[tuple[Any, None, None]]:
        yield twin.welcome(hello()), None, None

    monkeypatch.setattr("cachesvc.membership.static.greeting", greeting)
    asyncio.run(membership.round())
    assert cluster.welcome(hello()).trouble == (
        "member 127.0.0.1:1003 was never met: 127.0.0.1:1003 answers with this node's id;"
        " give each a data directory of its own"
    )
