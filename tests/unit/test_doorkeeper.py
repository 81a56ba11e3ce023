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
        assert keeper.knows(every[max(0, number - count + 1)])
    assert not any(keeper.knows(what) for what in every[:50])
