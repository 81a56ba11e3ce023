"""The doorkeeper: knows who comes again, and forgets who came long ago."""

from __future__ import annotations

from cachesvc.doorkeeper import Doorkeeper


def test_who_comes_again_is_known() -> None:
    keeper = Doorkeeper(10)
    assert [keeper.knows(what) for what in (b"a", b"b", b"a", b"a", b"b")] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_the_last_are_known_and_those_of_long_ago_forgotten() -> None:
    count = 100
    keeper, every = Doorkeeper(count), [b"%d" % number for number in range(1000)]
    for number, what in enumerate(every):
        assert not keeper.knows(what)
        assert len(keeper._young) + len(keeper._old) < 2 * count
        assert number % 50 or keeper.knows(what)
    assert all(keeper.knows(what) for what in every[: -count - 1 : -1])
    assert not any(keeper.knows(what) for what in every[:50])


def test_who_comes_again_and_again_stays_known_among_many_strangers() -> None:
    keeper = Doorkeeper(10)
    keeper.knows(b"a")
    for number in range(1000):
        assert keeper.knows(b"%d" % number) is False
        if number % 8 == 0:
            assert keeper.knows(b"a")
