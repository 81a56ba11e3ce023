"""The doorkeeper: knows who comes again, and forgets who came long ago."""

from __future__ import annotations

import pytest

from cachesvc.doorkeeper import Doorkeeper


def named(prefix: str, count: int) -> list[bytes]:
    """Different things."""
    return [f"{prefix}{number}".encode() for number in range(count)]


def test_who_comes_again_is_known() -> None:
    keeper = Doorkeeper(1 << 16)
    assert not keeper.knows(b"a")
    assert keeper.knows(b"a")
    assert keeper.knows(b"a")
    assert not keeper.knows(b"b")


def test_most_of_the_last_are_known_and_few_of_long_ago() -> None:
    keeper = Doorkeeper(1024)
    strangers = named("s", 20_000)
    assert sum(keeper.knows(one) for one in strangers) == 0
    # of the last 512, exp(-1/4) on average, 77 %; of the first 10,000 none but by a rare chance
    assert sum(keeper.knows(one) for one in strangers[:-513:-1]) > 256
    assert sum(keeper.knows(one) for one in strangers[:10_000]) == 0


def test_what_is_asked_for_often_is_known_among_many_strangers() -> None:
    keeper = Doorkeeper(1024)
    keeper.knows(b"a")
    known = 0
    for number, one in enumerate(named("s", 8000)):
        keeper.knows(one)
        known += number % 8 == 0 and keeper.knows(b"a")
    assert known > 900, "of 1000, 8 strangers between two: 992 on average"


@pytest.mark.parametrize("count", [0, 3, 1000])
def test_a_table_has_a_power_of_two_of_places(count: int) -> None:
    with pytest.raises(ValueError, match=f"a table of {count} places"):
        Doorkeeper(count)
