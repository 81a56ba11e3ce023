"""The index against a plain dict, its policies against plain lists: nothing lost, nothing twice."""

from __future__ import annotations

import gc
from collections import OrderedDict
from hashlib import blake2b
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cachesvc.core.eviction import MAX_MOVES, MIN_GHOSTS, Ghosts, Lru, S3Fifo
from cachesvc.core.index import Index
from cachesvc.core.queues import NIL, Fifo, Links
from cachesvc.core.tally import SHARDS

PROFILE = settings(max_examples=80, stateful_step_count=60)
CAPACITY_BYTES = 1000

names = st.integers(0, 40)
sizes = st.integers(0, 150)


def id_of(name: int) -> bytes:
    return blake2b(name.to_bytes(8, "big"), digest_size=16).digest()


def first_of(name: int) -> int:
    """Every other block is a block 0, of one of a few objects."""
    return name % 5 * SHARDS + 7 if name % 2 else 0


class IndexMachine(RuleBasedStateMachine):
    """Any order of calls, checked against an OrderedDict of name -> size."""

    policy_name = ""

    @initialize()
    def start(self) -> None:
        self.index = Index(self.policy_name, CAPACITY_BYTES)
        self.model: OrderedDict[int, int] = OrderedDict()

    def slot(self, name: int) -> int:
        slot = self.index.get(id_of(name))
        assert slot is not None
        return slot

    def stored(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.model)))

    @rule(name=names, size=sizes)
    def add(self, name: int, size: int) -> None:
        if name in self.model:
            with pytest.raises(AssertionError):
                self.index.add(id_of(name), size, first_of(name))
        else:
            self.index.add(id_of(name), size, first_of(name))
            self.model[name] = size

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        name = self.stored(data)
        self.index.touch(self.slot(name))
        self.model.move_to_end(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), size=sizes)
    def resize(self, data: st.DataObject, size: int) -> None:
        name = self.stored(data)
        self.index.resize(self.slot(name), size)
        self.model[name] = size

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = self.stored(data)
        slot = self.slot(name)
        self.index.remove(slot)
        del self.model[name]
        with pytest.raises(AssertionError):
            self.index.remove(slot)

    @rule(protected=st.frozensets(names))
    def evict(self, protected: frozenset[int]) -> None:
        def protect(slot: int) -> bool:
            return self.index.block_id(slot) in {id_of(name) for name in protected}

        slot = self.index.victim(protect)
        free = [name for name in self.model if name not in protected]
        if slot is None:
            assert not free
        else:
            name = next(name for name in free if id_of(name) == self.index.block_id(slot))
            self.check_choice(name, free)
            self.index.evicted(slot)
            del self.model[name]

    def check_choice(self, name: int, free: list[int]) -> None:
        """What the policy promises of its choice."""

    @rule(capacity=st.integers(0, 2 * CAPACITY_BYTES))
    def change_capacity(self, capacity: int) -> None:
        self.index.capacity_bytes = capacity
        assert self.index.capacity_bytes == capacity

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert len(self.index) == len(self.model)
        assert self.index.stored_bytes == sum(self.model.values())
        slots = {name: self.slot(name) for name in self.model}
        assert len(set(slots.values())) == len(slots)
        for name, slot in slots.items():
            found = (self.index.block_id(slot), self.index.size_bytes(slot))
            assert found == (id_of(name), self.model[name])
        assert set(self.index.ids()) == {id_of(name) for name in self.model}
        assert all(self.index.get(id_of(name)) is None for name in range(41) if name not in slots)
        firsts = {first_of(name) for name in self.model}
        for name in range(1, 41, 2):
            assert self.index.none_of(first_of(name)) == (first_of(name) not in firsts)
        self.check_queues(slots)

    def check_queues(self, slots: dict[int, int]) -> None:
        raise NotImplementedError


def chain(queue: Fifo) -> list[int]:
    """The slots of a queue, oldest first, after checking that both directions agree."""
    slots = list(queue)
    backwards = []
    slot = queue.newest
    while slot != NIL:
        backwards.append(slot)
        slot = queue._links.older[slot]
    assert backwards == slots[::-1]
    assert len(slots) == len(queue)
    return slots


class LruMachine(IndexMachine):
    policy_name = "lru"

    def check_choice(self, name: int, free: list[int]) -> None:
        assert name == free[0]

    def check_queues(self, slots: dict[int, int]) -> None:
        policy = cast(Lru, self.index._policy)
        assert chain(policy._queue) == [slots[name] for name in self.model]


class S3FifoMachine(IndexMachine):
    policy_name = "s3fifo"

    def check_queues(self, slots: dict[int, int]) -> None:
        policy = cast(S3Fifo, self.index._policy)
        small, main = chain(policy._small), chain(policy._main)
        assert sorted(small + main) == sorted(slots.values())
        assert policy._small_bytes == sum(self.index.size_bytes(slot) for slot in small)
        assert all(policy._sizes[slot] == self.index.size_bytes(slot) for slot in small + main)
        assert all(policy._states[slot] <= 3 for slot in small)
        assert all(4 <= policy._states[slot] <= 7 for slot in main)

    def check_choice(self, name: int, free: list[int]) -> None:
        policy = cast(S3Fifo, self.index._policy)
        slot = self.slot(name)
        hits = policy._states[slot] & 3
        assert hits <= 1 if slot in chain(policy._small) else hits == 0
        assert self.index.victim(lambda other: other != slot) == slot


TestLru = LruMachine.TestCase
TestLru.settings = PROFILE
TestS3Fifo = S3FifoMachine.TestCase
TestS3Fifo.settings = PROFILE


class Cache:
    """An index that evicts before it adds, as a store does."""

    def __init__(self, policy_name: str, capacity_bytes: int) -> None:
        self.index = Index(policy_name, capacity_bytes)

    def read(self, name: int, size_bytes: int = 1) -> bool:
        """Whether the block was there; it is afterwards."""
        slot = self.index.get(id_of(name))
        if slot is not None:
            self.index.touch(slot)
            return True
        while self.index.stored_bytes + size_bytes > self.index.capacity_bytes:
            victim = self.index.victim()
            assert victim is not None
            self.index.evicted(victim)
        self.index.add(id_of(name), size_bytes)
        return False


def heat(cache: Cache, hot: range) -> None:
    for _ in range(4):
        for name in hot:
            cache.read(name)


def test_a_scan_of_blocks_read_once_does_not_flush_the_hot_ones_from_s3fifo() -> None:
    cache = Cache("s3fifo", 1000)
    hot = range(MAX_MOVES - 1)
    heat(cache, hot)
    for name in range(10_000, 20_000):
        cache.read(name)
    assert all(cache.read(name) for name in hot)


def test_the_bound_on_moves_costs_s3fifo_at_most_one_hot_block_per_bound() -> None:
    cache = Cache("s3fifo", 10_000)
    hot = range(9000)
    heat(cache, hot)
    for name in range(10_000, 30_000):
        cache.read(name)
    lost = sum(cache.index.get(id_of(name)) is None for name in hot)
    assert lost <= -(-len(hot) // MAX_MOVES)


def test_the_same_scan_flushes_lru() -> None:
    cache = Cache("lru", 1000)
    heat(cache, range(800))
    for name in range(10_000, 20_000):
        cache.read(name)
    assert not any(cache.index.get(id_of(name)) for name in range(800))


def test_a_block_that_comes_back_while_its_ghost_lives_outlasts_the_next_scan() -> None:
    cache = Cache("s3fifo", 1000)
    heat(cache, range(800))
    for name in range(10_000, 10_400):
        cache.read(name)
    assert not cache.read(10_000)
    for name in range(20_000, 21_000):
        cache.read(name)
    assert cache.read(10_000)


def test_the_small_queue_keeps_to_a_tenth_of_the_bytes_under_mixed_sizes() -> None:
    cache = Cache("s3fifo", 10_000)
    heat(cache, range(8000))
    for name in range(10_000, 12_000):
        cache.read(name, size_bytes=1 + name % 90)
    policy = cast(S3Fifo, cache.index._policy)
    assert policy._small_bytes <= 10_000 // 10 + 90 + 2000
    assert cache.index.stored_bytes <= 10_000


@pytest.mark.parametrize("policy_name", ["s3fifo", "lru"])
def test_with_everything_protected_there_is_no_victim(policy_name: str) -> None:
    cache = Cache(policy_name, 1000)
    heat(cache, range(1000))
    assert cache.index.victim(lambda slot: True) is None
    assert cache.index.victim(lambda slot: slot != 77) == 77
    assert Index(policy_name, 0).victim() is None


def test_with_everything_hot_a_victim_is_found_in_a_bounded_number_of_steps() -> None:
    cache = Cache("s3fifo", 20_000)
    heat(cache, range(20_000))
    policy = cast(S3Fifo, cache.index._policy)
    for _ in range(3):
        before = bytes(policy._states)
        slot = cache.index.victim()
        assert slot is not None
        changed = sum(one != other for one, other in zip(before, policy._states, strict=True))
        assert changed <= 2 * MAX_MOVES
        cache.index.evicted(slot)


def test_a_victim_stays_the_victim_until_it_goes() -> None:
    cache = Cache("s3fifo", 100)
    heat(cache, range(50))
    for name in range(1000, 1050):
        cache.read(name)
    assert cache.index.victim() == cache.index.victim()


def test_ghosts_never_exceed_their_limit_and_remember_at_least_half_of_it() -> None:
    ghosts = Ghosts()
    for limit in [MIN_GHOSTS, 101, 1000, 50, MIN_GHOSTS]:
        for name in range(3000):
            ghosts.add(id_of(name), limit)
            assert len(ghosts) <= limit
        assert all(id_of(name) in ghosts for name in range(3000 - limit // 2, 3000))
        assert id_of(3000 - limit - 1) not in ghosts


def test_a_slot_is_used_again() -> None:
    index = Index("s3fifo", 10)
    for name in range(5000):
        slot = index.add(id_of(name), 1)
        assert slot <= 1
        if name % 2:
            for used in (0, 1):
                index.evicted(used)


def test_the_garbage_collector_has_nothing_per_block_to_walk() -> None:
    cache = Cache("s3fifo", 5000)
    gc.collect()
    before = len(gc.get_objects())
    heat(cache, range(4000))
    for name in range(10_000, 20_000):
        cache.read(name)
    assert len(gc.get_objects()) - before < 20
    assert not gc.is_tracked(cache.index._slot_of)


@pytest.mark.parametrize("size_bytes", [-1, 1 << 32])
def test_a_size_that_no_block_has_is_refused_before_anything_changes(size_bytes: int) -> None:
    index = Index("lru", 10)
    slot = index.add(id_of(1), 5)
    with pytest.raises(AssertionError):
        index.add(id_of(2), size_bytes)
    with pytest.raises(AssertionError):
        index.resize(slot, size_bytes)
    assert (len(index), index.stored_bytes, index.get(id_of(2))) == (1, 5, None)


def test_an_unknown_policy_or_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="s3fifo or lru"):
        Index("arc", 1)
    with pytest.raises(ValueError, match="capacity_bytes"):
        Index("lru", -1)


def test_a_queue_gives_up_its_ends_and_its_middle() -> None:
    links = Links()
    links.reserve(3)
    queue = Fifo(links)
    for slot in range(4):
        queue.push(slot)
    for slot, left in [(1, [0, 2, 3]), (0, [2, 3]), (3, [2]), (2, [])]:
        queue.remove(slot)
        assert chain(queue) == left
