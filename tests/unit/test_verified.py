"""What is remembered of checked pages: only of a file that nobody can have written since."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cachesvc_client import verified
from cachesvc_client.verified import SETTLED_NS, Claim, State, Verified

from cachesvc.core.types import PAGES_PER_BLOCK
from tests.support import pattern, until

PAGE = 4096
SIZE = 8 * PAGE + 100
ALL = Claim(0, PAGE, SIZE, pattern(9 * 8))


def settled_ns() -> int:
    return time.time_ns() + SETTLED_NS


def part(first: int, beyond: int) -> Claim:
    return Claim(first * PAGE, PAGE, SIZE, ALL.checksums[first * 8 : beyond * 8])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "block"
    path.write_bytes(pattern(SIZE))
    return path


@pytest.fixture
def file(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR)
    yield file
    os.close(file)


def ticked(path: Path) -> None:
    """Wait until a write gets another time than the file has, where that is counted in ticks."""
    probe = path.with_name("probe")

    def later() -> bool:
        probe.write_bytes(b"")
        return probe.stat().st_ctime_ns > path.stat().st_ctime_ns

    until(later, "the file system's clock goes on")


def test_what_was_checked_is_known_page_by_page(file: int) -> None:
    seen, state = Verified(clock_ns=settled_ns), State.of(file)
    assert not seen.holds(state, ALL)
    seen.note(file, state, part(2, 5))
    assert seen.holds(state, part(2, 5))
    assert seen.holds(state, part(3, 4))
    for unknown in part(1, 3), part(4, 6), part(8, 9), ALL:
        assert not seen.holds(state, unknown)
    seen.note(file, state, part(0, 2))
    seen.note(file, state, part(5, 9))
    assert seen.holds(state, ALL)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "claim",
    [
        replace(ALL, checksums=bytes([ALL.checksums[0] ^ 1]) + ALL.checksums[1:]),
        replace(ALL, checksums=ALL.checksums[:-1] + bytes([ALL.checksums[-1] ^ 1])),
        replace(ALL, checksums=ALL.checksums + bytes(8)),
        replace(ALL, end=SIZE - 1),
        replace(ALL, page_bytes=2 * PAGE),
        replace(ALL, offset=PAGE),
        replace(ALL, offset=1),
        replace(ALL, offset=PAGES_PER_BLOCK * PAGE),
    ],
)
def test_another_claim_about_the_same_file_is_unknown(file: int, claim: Claim) -> None:
    seen, state = Verified(clock_ns=settled_ns), State.of(file)
    seen.note(file, state, ALL)
    assert not seen.holds(state, claim)


@pytest.mark.parametrize("offset", [1, PAGES_PER_BLOCK * PAGE, (1 << 40) * PAGE])
def test_pages_that_no_block_file_has_are_not_remembered(file: int, offset: int) -> None:
    seen, state = Verified(clock_ns=settled_ns), State.of(file)
    seen.note(file, state, replace(ALL, offset=offset))
    assert len(seen) == 0


def written(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(b"x")


def mapped(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[PAGE] ^= 1
        memory.flush()


def cut(path: Path) -> None:
    os.truncate(path, PAGE)
    os.truncate(path, SIZE)


def dated_back(path: Path) -> None:
    before = path.stat()
    written(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


CHANGES = [written, mapped, cut, dated_back, replaced]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_is_unknown(
    path: Path, file: int, change: Callable[[Path], None]
) -> None:
    seen, state = Verified(clock_ns=settled_ns), State.of(file)
    seen.note(file, state, ALL)
    ticked(path)
    change(path)
    again = os.open(path, os.O_RDONLY)
    try:
        assert not seen.holds(State.of(again), ALL)
        seen.note(again, State.of(again), part(0, 1))
        assert not seen.holds(State.of(again), ALL), "nothing is left of what it was"
    finally:
        os.close(again)


def test_a_file_that_changes_during_the_check_is_not_remembered(path: Path, file: int) -> None:
    seen, state = Verified(clock_ns=settled_ns), State.of(file)
    ticked(path)
    written(path)
    seen.note(file, state, ALL)
    assert not seen.holds(state, ALL)
    assert not seen.holds(State.of(file), ALL)


@pytest.mark.parametrize("age_ns", [-1, 0, SETTLED_NS - 1])
def test_a_file_that_was_just_written_is_not_remembered(file: int, age_ns: int) -> None:
    state = State.of(file)
    seen = Verified(clock_ns=lambda: state.changed_ns + age_ns)
    seen.note(file, state, ALL)
    assert len(seen) == 0


def test_the_file_that_was_not_asked_for_the_longest_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "MAX_FILE_COUNT", 2)
    seen = Verified(clock_ns=settled_ns)
    states = []
    for number in range(3):
        path = tmp_path / str(number)
        path.write_bytes(pattern(SIZE))
        with path.open("rb") as file:
            states.append(State.of(file.fileno()))
            seen.note(file.fileno(), states[-1], ALL)
        assert seen.holds(states[0], ALL)
    assert [seen.holds(state, ALL) for state in states] == [True, False, True]
    assert len(seen) == 2


def test_a_child_knows_what_its_parent_checked(file: int) -> None:
    seen, state = Verified(clock_ns=settled_ns), State.of(file)
    seen.note(file, state, ALL)
    with seen._lock:  # as another thread of the parent may, during the fork
        child = Verified(seen)
        assert child.holds(state, ALL)
