"""Pages that the gateway checked a moment ago leave by sendfile, and none that changed since."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable

import pytest

from cachesvc import vouched
from cachesvc.gateway import outlet
from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as unchanged at once."""
    monkeypatch.setattr(vouched, "SETTLED_NS", 0)


@pytest.fixture
def sent_bytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How much the kernel sent from files since it was asked last."""
    counts = [0]
    send = os.sendfile

    def counted(out: int, file: int, offset: int, count: int) -> int:
        sent = send(out, file, offset, count)
        counts[0] += sent
        return sent

    def told() -> int:
        found, counts[0] = counts[0], 0
        return found

    monkeypatch.setattr(os, "sendfile", counted)
    return told


def hot(gate: Gate, sent_bytes: Callable[[], int]) -> None:
    """All pages were checked, and are sent by the kernel."""
    for _ in range(2):
        assert gate.ask()[2] == DATA
    if not sent_bytes():
        pytest.skip("this kernel does not say what of a file is in memory (Linux 6.5 does)")
    assert gate.ask()[2] == DATA
    assert sent_bytes() > len(DATA) // 2


def damage(file: int, size_bytes: int | None) -> None:
    """Write into an open file's beginning, and cut it short if a size is given."""
    with open(f"/proc/self/fd/{file}", "r+b") as damaged:
        if size_bytes is not None:
            damaged.truncate(size_bytes)
        damaged.write(os.urandom(8))


def is_cut_off(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, sendfile: Callable[[int, int, int, int], int]
) -> None:
    """With this in place of os.sendfile an answer does not come to its end; those after it do."""
    monkeypatch.setattr(os, "sendfile", sendfile)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        gate.ask()
    monkeypatch.undo()
    assert gate.ask()[2] == DATA
    assert gate.ask()[2] == DATA


def test_any_range_of_them_is_right(gate: Gate, sent_bytes: Callable[[], int]) -> None:
    hot(gate, sent_bytes)
    for start, end in ((0, 999_999), (12_345, 2_000_001), (1 << 20, 3 << 20), (70_000, 400_000)):
        status, _, body = gate.ask(headers={"Range": f"bytes={start}-{end}"})
        assert (status, body == DATA[start : end + 1]) == (206, True)
    assert sent_bytes() > 0


def test_damage_is_found_and_filled_again(gate: Gate, sent_bytes: Callable[[], int]) -> None:
    hot(gate, sent_bytes)
    for number, block in enumerate(gate.blocks()[:3]):
        with gate.path_of(block).open("r+b") as file:
            file.seek(20_000 * (number + 1))
            file.write(b"damage")
    assert gate.ask()[2] == DATA
    assert gate.count("corrupt_blocks_total", check="page") == 3


def test_a_file_cut_short_is_filled_again(gate: Gate, sent_bytes: Callable[[], int]) -> None:
    hot(gate, sent_bytes)
    with gate.path_of(gate.blocks()[1]).open("r+b") as file:
        file.truncate(100_000)
    assert gate.ask()[2] == DATA
    assert gate.ask()[2] == DATA


@pytest.mark.parametrize("cut", [False, True])
def test_a_file_that_is_written_while_it_is_sent_ends_the_connection(
    gate: Gate, sent_bytes: Callable[[], int], monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """What the client was sent may be what was there before, or after."""
    hot(gate, sent_bytes)
    send = os.sendfile

    def damaging(out: int, file: int, offset: int, count: int) -> int:
        sent = send(out, file, offset, min(count, 65536))
        damage(file, 100_000 if cut else None)
        return sent

    is_cut_off(gate, monkeypatch, damaging)


def test_what_was_lent_of_a_file_that_then_fails_must_still_be_there(
    gate: Gate, sent_bytes: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overwritten and cut short between two sends, once, and not in the first turn: the rest could
    be filled again, but what has been given to the kernel could not.
    """
    hot(gate, sent_bytes)
    monkeypatch.setattr(outlet, "TURN_BYTES", 2 * 65536)
    send, before, failed = os.sendfile, [0], [False]

    def failing(out: int, file: int, offset: int, count: int) -> int:
        sent = send(out, file, offset, min(count, 65536))
        before[0] += sent
        if not failed[0] and before[0] >= 5 * 65536:
            failed[0] = True
            damage(file, offset + sent)
        return sent

    is_cut_off(gate, monkeypatch, failing)


def test_a_file_that_only_grows_while_it_is_sent_is_sent_to_its_end(
    gate: Gate, sent_bytes: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when others have pages added to a block that is there in part."""
    hot(gate, sent_bytes)
    send, count = os.sendfile, [0]

    def touching(out: int, file: int, offset: int, length: int) -> int:
        sent = send(out, file, offset, min(length, 65536))
        os.utime(f"/proc/self/fd/{file}")
        count[0] += 1
        return sent

    monkeypatch.setattr(os, "sendfile", touching)
    assert gate.ask()[2] == DATA
    assert count[0] > 1


def test_what_left_memory_is_checked_anew(gate: Gate, sent_bytes: Callable[[], int]) -> None:
    hot(gate, sent_bytes)
    for block in gate.blocks():
        with gate.path_of(block).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert gate.ask()[2] == DATA
    assert sent_bytes() == 0
    assert gate.ask()[2] == DATA
    assert sent_bytes() > 0
