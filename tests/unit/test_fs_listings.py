"""Listings of a file system: as old as their question, and none that a change overtook."""

from __future__ import annotations

import pytest

from tests.support import Clock

pytest.importorskip("fsspec", reason="fsspec is not installed")

from cachesvc_client.fs.listings import Listings


def test_a_listing_is_as_old_as_its_question() -> None:
    clock = Clock()
    listings = Listings(10, clock=clock)

    def slowly() -> list[str]:
        clock.now += 9
        return ["name"]

    assert listings.taken("path", slowly) == ["name"]
    assert listings["path"] == ["name"]
    clock.now += 1
    assert "path" not in listings
    assert len(listings) == 0


@pytest.mark.parametrize("change", ["forget", "clear"])
def test_a_listing_that_a_change_overtook_is_its_askers_alone(change: str) -> None:
    listings = Listings(10)

    def overtaken() -> list[str]:
        listings.forget(["elsewhere"]) if change == "forget" else listings.clear()
        return ["old"]

    assert listings.taken("path", overtaken) == ["old"]
    assert "path" not in listings
    listings["path"] = ["new"]
    assert listings["path"] == ["new"]
    listings.forget(["path", "nowhere"])
    assert list(listings) == []


def test_nobody_finds_a_listing_before_it_is_known_that_no_change_overtook_it() -> None:
    listings = Listings(10)

    class Watched(dict):  # type: ignore[type-arg]
        def __setitem__(self, path: str, kept: object) -> None:
            super().__setitem__(path, kept)
            assert path not in listings, "another thread looks now"

    listings._kept = Watched()
    listings["path"] = ["name"]
    assert listings["path"] == ["name"]


@pytest.mark.parametrize(("expiry_s", "kept"), [(10, 3), (None, 5)])
def test_what_is_too_old_is_let_go_when_others_come_and_what_is_too_much(
    expiry_s: float | None, kept: int
) -> None:
    clock = Clock()
    listings = Listings(expiry_s, 5, clock)
    for number in range(100):
        clock.now += 4
        listings[str(number)] = [number]
    assert len(listings._kept) == kept
    assert list(listings) == [str(number) for number in range(100 - kept, 100)]


def test_where_nothing_is_to_be_believed_nothing_is_kept() -> None:
    listings = Listings(0)
    assert listings.taken("path", lambda: ["name"]) == ["name"]
    assert "path" not in listings
    assert not listings._kept
