"""What is kept within a bound: the books agree, and what is used stays."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cachesvc.kept import Kept

LIMIT = 1000


@dataclass
class Thing:
    size_bytes: int
    used: bool = False


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 400), st.sampled_from("kgd"))))
def test_the_books_agree(steps: list[tuple[int, int, str]]) -> None:
    kept: Kept[int, Thing] = Kept(LIMIT)
    for key, size_bytes, step in steps:
        found = kept.get(key)
        if step == "k":
            kept.keep(key, thing := Thing(size_bytes))
            assert kept.get(key) is thing
        elif step == "g" and found is not None:
            found.used = True
        elif found is not None:
            kept.drop(key, found)
            assert kept.get(key) is None
        held = kept.values()
        assert sum(one.size_bytes for one in held) == kept.size_bytes <= LIMIT
        assert len(held) == len(kept)


def test_what_is_used_stays_and_the_rest_goes_oldest_first() -> None:
    kept: Kept[int, Thing] = Kept(LIMIT)
    for key in range(10):
        kept.keep(key, Thing(100))
    for key in (0, 3):
        found = kept.get(key)
        assert found is not None
        found.used = True
    for key in range(10, 14):
        kept.keep(key, Thing(100))
    assert sorted(key for key in range(14) if kept.get(key)) == [0, 3, *range(6, 14)]


def test_what_has_been_replaced_is_not_dropped_for_what_it_was() -> None:
    kept: Kept[str, Thing] = Kept(LIMIT)
    old, new = Thing(100), Thing(200)
    kept.keep("a", old)
    kept.keep("a", new)
    kept.drop("a", old)
    assert kept.get("a") is new
    assert kept.size_bytes == 200
    kept.drop_if(lambda one: one.size_bytes == 200)
    assert (len(kept), kept.size_bytes) == (0, 0)


def test_what_is_larger_than_the_bound_is_not_kept() -> None:
    kept: Kept[str, Thing] = Kept(LIMIT)
    kept.keep("small", Thing(100))
    kept.keep("large", Thing(LIMIT + 1))
    assert (kept.get("large"), kept.size_bytes) == (None, 0)


def test_what_is_listed_is_listed_under_the_lock() -> None:
    """Another thread may have its turn in the midst of it, and keep something."""
    kept: Kept[str, Thing] = Kept(LIMIT)

    class Watched(OrderedDict[str, Thing]):
        def items(self):  # type: ignore[no-untyped-def]
            assert kept._lock.locked()
            return super().items()

        def values(self):  # type: ignore[no-untyped-def]
            assert kept._lock.locked()
            return super().values()

    kept._values = Watched(one=Thing(1), two=Thing(2))
    assert len(kept.values()) == 2
    kept.drop_if(lambda one: one.size_bytes == 1)
    assert [one.size_bytes for one in kept.values()] == [2]
