"""The router under a clock of the test: who is asked, who is left alone, and for how long."""

from __future__ import annotations

from cachesvc_client.router import Router

from cachesvc.core.ring import Member, MemberTable, Ring
from cachesvc.core.types import Geometry, ObjectName

NAME = ObjectName("b", "k")
MEMBERS = [Member(f"n{number}", f"h{number}:1") for number in range(5)]
TABLE = MemberTable(MEMBERS)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def router(clock: Clock, owner_tries: int = 3) -> Router:
    return router_of(TABLE, clock, owner_tries)


def router_of(table: MemberTable, clock: Clock, owner_tries: int = 3) -> Router:
    return Router(
        table, Geometry(), clock=clock, owner_tries=owner_tries, eject_ms=1000, eject_max_ms=30_000
    )


def test_candidates_are_the_owners_of_the_ring_in_order() -> None:
    one, ring = router(Clock()), Ring(TABLE)
    for block in range(50):
        assert one.candidates(NAME, block) == ring.owners(NAME, block, 3)


def test_an_ejected_owner_is_replaced_by_the_next_one() -> None:
    one, owners = router(Clock()), Ring(TABLE).owners(NAME, 0, 5)
    one.failed(owners[0], "down")
    assert one.candidates(NAME, 0) == owners[1:4]
    assert one.ejected(NAME, 0) == [owners[0]]
    assert not one.admit(owners[0].node_id)
    assert "down" in one.trouble()


def test_all_ejected_leaves_no_candidate_until_the_time_is_over() -> None:
    clock = Clock()
    one = router(clock)
    for member in MEMBERS:
        one.failed(member)
    assert one.candidates(NAME, 0) == []
    clock.now_s += 1.0
    assert len(one.candidates(NAME, 0)) == 3


def test_one_request_tries_a_node_whose_time_is_over_and_the_others_wait() -> None:
    clock = Clock()
    one, first = router(clock), Ring(TABLE).owners(NAME, 0, 1)[0]
    one.failed(first)
    clock.now_s += 1.0
    assert one.candidates(NAME, 0)[0] == first
    assert one.admit(first.node_id)
    assert not one.admit(first.node_id)
    assert first not in one.candidates(NAME, 0)
    one.succeeded(first)
    assert one.admit(first.node_id)
    assert one.candidates(NAME, 0)[0] == first


def test_the_ejection_doubles_up_to_its_bound_while_the_node_stays_down() -> None:
    clock = Clock()
    one, member = router(clock), MEMBERS[0]
    pauses = []
    one.failed(member)
    for _ in range(7):
        begun_s = clock.now_s
        while not one.admit(member.node_id):
            clock.now_s += 0.5
        pauses.append(clock.now_s - begun_s)
        one.failed(member)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_requests_that_fail_at_the_same_time_count_once() -> None:
    clock = Clock()
    one, member = router(clock), MEMBERS[0]
    for _ in range(8):
        one.failed(member)
    clock.now_s += 1.0
    assert one.admit(member.node_id)


def test_nodes_that_are_silent_together_are_ejected_together() -> None:
    clock = Clock()
    one, owners = router(clock), Ring(TABLE).owners(NAME, 0, 5)
    for owner in owners[:2]:
        clock.now_s += 11
        one.failed(owner, "silent", 11.0)
    for owner in owners[:2]:
        assert not one.admit(owner.node_id)
    clock.now_s += 11.5
    assert one.admit(owners[0].node_id)
    assert not one.admit(owners[1].node_id)
    clock.now_s += 11
    one.failed(owners[0], "silent", 11.0)
    clock.now_s += 29
    assert not one.admit(owners[0].node_id), "the pause doubles, up to its bound"
    clock.now_s += 2
    assert one.admit(owners[0].node_id)


def test_a_success_forgets_how_long_the_last_ejection_was() -> None:
    clock = Clock()
    one, member = router(clock), MEMBERS[0]
    for _ in range(3):
        one.failed(member)
        clock.now_s += 30
        assert one.admit(member.node_id)
    one.succeeded(member)
    one.failed(member)
    clock.now_s += 1.0
    assert one.admit(member.node_id)


def test_another_table_is_adopted_and_ejections_hold_for_the_same_address_only() -> None:
    one = router(Clock())
    for member in MEMBERS[:2]:
        one.failed(member)
    moved = Member("n0", "elsewhere:1")
    table = MemberTable([moved, *MEMBERS[1:]])
    one.adopt(table)
    assert one.epoch == table.epoch
    assert one.admit("n0")
    assert not one.admit("n1")


def test_an_empty_table_knows_nobody() -> None:
    one = router_of(MemberTable(), Clock())
    assert not one.known
    assert one.candidates(NAME, 0) == []
    one.adopt(TABLE, Geometry(page_bytes=128 << 10))
    assert one.known
    assert one.geometry.page_bytes == 128 << 10


def test_the_first_owner_is_named_while_it_is_up_whoever_else_is_down() -> None:
    clock = Clock()
    one, ring = router(clock), Ring(TABLE)
    one.failed(MEMBERS[0])
    clock.now_s += 60.0  # its time is over, and nobody has tried it
    for block in range(50):
        owner = ring.owner(NAME, block)
        assert one.first_owner(NAME, block) == (None if owner == MEMBERS[0] else owner)
    one.succeeded(MEMBERS[0])
    assert [one.first_owner(NAME, block) for block in range(50)] == [
        ring.owner(NAME, block) for block in range(50)
    ]
    assert router_of(MemberTable(), clock).first_owner(NAME, 0) is None
