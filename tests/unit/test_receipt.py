"""Receipts of passed files: only what was asked for, and every page of it, is believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cachesvc_client import passed
from cachesvc_client.receipt import Receipt
from cachesvc_client.target import Room
from cachesvc_client.verified import Verified

from cachesvc.core.blocks import cuts
from cachesvc.core.errors import CorruptAnswer, ProtocolError
from cachesvc.core.format import checksum
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import Source
from cachesvc.wire.codec import ReadHead, SegmentHead
from tests.support import NAME, pattern, version_of

PAGE = 4096
DATA = pattern(10 * PAGE + 100)
END = len(DATA)
VERSION = version_of(DATA)


def head_of(start: int, end: int) -> SegmentHead:
    first, beyond = start // PAGE * PAGE, min(-(-end // PAGE) * PAGE, END)
    sums = b"".join(checksum(DATA[a:b]) for a, b in cuts(first, beyond, PAGE))
    return SegmentHead(start, end - start, Source.DISK, sums, 0, start)


def receipt_of(start: int, end: int, *, asked: bool = True) -> tuple[Receipt, Room]:
    request = ReadRequest(NAME, ((start, end),), VERSION, descriptors=asked)
    room = Room([(start, end)])
    room.begin(VERSION)
    return Receipt(request, room, PAGE, "node n"), room


def accepted(path: Path, start: int, end: int, head: SegmentHead) -> bytes:
    receipt, room = receipt_of(start, end)
    file = os.open(path, os.O_RDONLY)
    try:
        for one in receipt.take_files(ReadHead((head,), VERSION, last=True), 0, 1):
            right = passed.accept(one, file, room, PAGE, receipt.size_bytes, Verified())
            receipt.settle(one, right=right)
    finally:
        os.close(file)
    assert receipt.reply().sources == {Source.DISK: end - start}
    return room.result(start, end)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "block"
    file.write_bytes(DATA)
    return file


RANGES = [(0, END), (1, END - 1), (PAGE, 2 * PAGE), (5, 6), (PAGE - 1, PAGE + 1), (END - 1, END)]


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_any_range_of_a_file_is_copied_and_checked(path: Path, start: int, end: int) -> None:
    assert accepted(path, start, end, head_of(start, end)) == DATA[start:end]


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_a_byte_that_is_wrong_anywhere_in_its_pages_is_noticed(
    path: Path, start: int, end: int
) -> None:
    for at in {start // PAGE * PAGE, start, end - 1, min(-(-end // PAGE) * PAGE, END) - 1}:
        damaged = bytearray(DATA)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptAnswer, match="do not match their checksum"):
            accepted(path, start, end, head_of(start, end))


def test_a_file_that_is_too_short_is_as_wrong(path: Path) -> None:
    for length in 0, PAGE, END - 1:
        os.truncate(path, length)
        with pytest.raises(CorruptAnswer):
            accepted(path, 1, END, head_of(1, END))


@pytest.mark.parametrize(
    "change",
    [
        lambda head: replace(head, checksums=head.checksums[:-8]),
        lambda head: replace(head, checksums=head.checksums + bytes(8)),
        lambda head: replace(head, checksums=b""),
        lambda head: replace(head, file_offset=head.file_offset + PAGE),
    ],
)
def test_checksums_that_do_not_fit_are_not_believed(
    path: Path, change: Callable[[SegmentHead], SegmentHead]
) -> None:
    with pytest.raises(CorruptAnswer):
        accepted(path, 5, 3 * PAGE, change(head_of(5, 3 * PAGE)))


@pytest.mark.parametrize(
    ("change", "body_bytes", "said"),
    [
        (lambda head: replace(head, descriptor=None), 2 * PAGE, "names no file"),
        (lambda head: replace(head, descriptor=1), 0, "beyond the 1"),
        (lambda head: replace(head, file_offset=4), 0, "from byte 4"),
        (lambda head: replace(head, file_offset=1 << 62), 0, "of a file"),
        (lambda head: replace(head, start=6, file_offset=6), 0, "where 5 is next"),
        (lambda head: replace(head, length_bytes=4 * PAGE), 0, "beyond"),
        (lambda head: head, 7, "has 7 bytes where its header says 0"),
    ],
)
def test_an_answer_that_is_none_is_refused(
    change: Callable[[SegmentHead], SegmentHead], body_bytes: int, said: str
) -> None:
    receipt, _ = receipt_of(5, 5 + 2 * PAGE)
    head = ReadHead((change(head_of(5, 5 + 2 * PAGE)),), VERSION)
    with pytest.raises(ProtocolError, match=said):
        receipt.take_files(head, body_bytes, 1)


def test_files_that_nobody_asked_for_or_that_do_not_come_are_refused() -> None:
    receipt, _ = receipt_of(0, PAGE, asked=False)
    with pytest.raises(ProtocolError, match="nobody asked for"):
        receipt.take_files(ReadHead((head_of(0, PAGE),), VERSION), 0, 1)
    receipt, _ = receipt_of(0, PAGE)
    with pytest.raises(ProtocolError, match="does not pass"):
        receipt.take(ReadHead((head_of(0, PAGE),), VERSION), 0)
