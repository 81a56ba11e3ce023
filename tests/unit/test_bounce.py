"""Copies by way of a buffer: where they are needed, and that every byte arrives."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from cachesvc_client import bounce, passed
from cachesvc_client.addresses import PAGE_BYTES
from cachesvc_client.target import Room
from cachesvc_client.verified import Verified

from cachesvc.core.blocks import cuts
from cachesvc.core.format import checksum
from cachesvc.core.memory import address_of
from cachesvc.core.types import Source
from cachesvc.wire.codec import SegmentHead
from tests.greeted import greeted
from tests.support import pattern, version_of

PAGE = 64 << 10
LENGTH = bounce.PIECE_BYTES * 2 + 12_345


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that is slow there."""
    monkeypatch.setattr(bounce, "_slow_here", lambda: True)


def place(offset: int, length: int = LENGTH) -> memoryview:
    """A view that begins so many bytes behind a page."""
    return memoryview(mmap.mmap(-1, length + 2 * PAGE_BYTES))[offset : offset + length]


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("start", [0, 5, 4090, 8 << 20, (8 << 20) + 4000])
def test_it_is_needed_just_behind_the_source_and_nowhere_else(start: int) -> None:
    needed = {
        distance
        for distance in range(PAGE_BYTES)
        if bounce.needed(place((start + distance) % PAGE_BYTES), start)
    }
    assert needed == set(range(1, 32))


@pytest.mark.usefixtures("slow")
def test_it_is_not_needed_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bounce.needed(place(16), 0)
    assert not bounce.needed(place(16)[:1000], 0)
    monkeypatch.setattr(bounce, "_slow_here", lambda: False)
    assert not bounce.needed(place(16), 0)


def test_without_a_file_to_try_it_with_bytes_come_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    bounce._slow_here.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(os, "memfd_create", none_left)
        assert not bounce.needed(place(16), 0)
    assert bounce._slow_here.cache_info().currsize == 0  # it is tried again


def test_the_buffer_is_far_from_both_and_each_thread_has_its_own() -> None:
    for offset in (0, 16, 2047, 2048, 4095):
        view = place(offset)
        room = bounce.room(view)
        assert len(room) == bounce.PIECE_BYTES
        assert len(bounce.room(view[:99])) == 99
        assert (address_of(room) - address_of(view)) % PAGE_BYTES == PAGE_BYTES // 2
    others: list[int] = []
    thread = Thread(target=lambda: others.append(address_of(bounce.room(place(16)))))
    thread.start()
    thread.join()
    assert abs(others[0] - address_of(bounce.room(place(16)))) >= bounce.PIECE_BYTES


def test_a_processor_is_tried_and_the_answer_kept() -> None:
    assert bounce._slow_here() is bounce._slow_here()


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("early", [0, 1, 100, 300_000])
@pytest.mark.parametrize("length", [0, 1000, 100_000, bounce.PIECE_BYTES, LENGTH])
def test_what_is_received_arrives_whole_and_is_told_in_order(early: int, length: int) -> None:
    data, told = pattern(length), []
    listener = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    connection = greeted(ours)
    with listener, theirs, ours:
        sender = Thread(target=theirs.sendall, args=(data[early:],))
        sender.start()
        connection.unread(memoryview(data[:early]))
        view = place(16, length)

        def landed(count: int) -> None:
            assert view[:count] == data[:count], "told of what is there"
            told.append(count)

        connection.fill(view, 0, landed)
        sender.join()
        assert view == data
        assert told == sorted(set(told))
        assert told[-1:] == ([length] if length else []), "also where all had come before"


PAGES = 40


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(pattern(PAGES * PAGE))
    file = os.open(tmp_path / "file", os.O_RDWR)
    yield file
    os.close(file)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    ("start", "end"), [(0, PAGES * PAGE), (5, PAGES * PAGE - 7), (3 * PAGE, 39 * PAGE)]
)
def test_a_file_that_is_copied_so_is_checked_all_the_same(file: int, start: int, end: int) -> None:
    data = pattern(PAGES * PAGE)
    first, beyond = start // PAGE * PAGE, -(-end // PAGE) * PAGE
    sums = b"".join(checksum(data[a:b]) for a, b in cuts(first, beyond, PAGE))
    head = SegmentHead(start, end - start, Source.DISK, sums, 0, start)
    room = Room([(start, end)], place((start + 16) % PAGE_BYTES, end - start))
    room.begin(version_of(data))
    assert bounce.needed(room.view(start, end - start), start)
    assert passed.accept(head, file, room, PAGE, len(data), Verified())
    assert room.result(start, end) == data[start:end]
    for at in (first, start, 20 * PAGE, end - 1, beyond - 1):
        os.pwrite(file, bytes([data[at] ^ 1]), at)
        assert not passed.accept(head, file, room, PAGE, len(data), Verified())
        os.pwrite(file, data[at : at + 1], at)
    os.truncate(file, beyond - 1)
    assert not passed.accept(head, file, room, PAGE, len(data), Verified())


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("at", [0, 500, -500, -1])
@pytest.mark.parametrize(("start", "end"), [(0, 4 * PAGE), (100, 2 * PAGE + 500)])
def test_a_handler_that_reads_by_the_same_room_in_between_is_found_out(
    file: int, monkeypatch: pytest.MonkeyPatch, start: int, end: int, at: int
) -> None:
    """Wherever it writes there, also on pages of which only a part was asked for."""
    data = pattern(PAGES * PAGE)
    beyond = -(-end // PAGE) * PAGE
    sums = b"".join(checksum(data[a:b]) for a, b in cuts(0, beyond, PAGE))
    head = SegmentHead(start, end - start, Source.DISK, sums, 0, start)
    room = Room([(start, end)], place((start + 16) % PAGE_BYTES, end - start))
    room.begin(version_of(data))
    read = passed._read

    def interrupted(file: int, view: memoryview, offset: int) -> None:
        read(file, view, offset)
        view[at] ^= 1

    assert passed.accept(head, file, room, PAGE, len(data), Verified())
    monkeypatch.setattr(passed, "_read", interrupted)
    assert not passed.accept(head, file, room, PAGE, len(data), Verified())


def test_a_forked_child_has_a_room_of_its_own() -> None:
    room = bounce.room(place(16))
    room[:4] = b"ours"
    child = os.fork()
    if not child:
        bounce.room(place(16))[:4] = b"kids"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(room[:4]) == b"ours"
