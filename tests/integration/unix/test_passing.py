"""The Unix lane: the same bytes, as read-only files where they are stored."""

from __future__ import annotations

import fcntl
import itertools
import os
from pathlib import Path

import pytest
from cachesvc_client import CacheClient

from cachesvc.core.format import checksum
from cachesvc.core.request import ReadRequest
from cachesvc.core.types import Geometry, Source
from cachesvc.passing import Unopened
from cachesvc.pins import Pin
from tests.integration.inprocess import GEOMETRY, InProcessNode, RawClient, running
from tests.integration.lane.sample import DATA, END, RANGES, expected
from tests.integration.unix.raw import UnixRaw
from tests.support import NAME, pattern, until

pytestmark = pytest.mark.usefixtures("copied_from_files")

URI = str(NAME)


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_misses_and_hits_give_the_same_bytes(node: InProcessNode, client: CacheClient) -> None:
    node.put(DATA)
    for _ in range(2):
        for start, end in RANGES:
            assert client.read(URI, start, end) == expected(start, end)
            buffer = bytearray(len(expected(start, end)))
            assert client.readinto(URI, buffer, start) == len(buffer)
            assert buffer == expected(start, end)
    assert client.read_ranges(URI, RANGES) == [expected(*one) for one in RANGES]
    assert node.origin.landed_bytes == END
    with client.open(URI) as file:
        assert file.read() == DATA
    assert client.stat(URI).size == END


@pytest.mark.parametrize("hot", [False, True])
def test_an_answer_passes_files_that_can_only_be_read(
    node: InProcessNode, tmp_path: Path, hot: bool
) -> None:
    version = node.put(DATA)
    with UnixRaw(tmp_path / "node.sock").greeted() as raw:
        if hot:
            with RawClient(node).greeted() as tcp:
                tcp.read()
        raw.ask((100, END - 7))
        found, last = b"", False
        while not last:
            with raw.head() as (head, body, files):
                last = head.last
                assert body == b""
                for one in head.segments:
                    assert one.source is (Source.DISK if hot else Source.ORIGIN)
                    assert one.descriptor is not None
                    file = files[one.descriptor]
                    assert fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
                    found += os.pread(file, one.length_bytes, one.file_offset)
                    block = node.blocks(version)[one.start // GEOMETRY.block_bytes]
                    page = one.start % GEOMETRY.block_bytes // GEOMETRY.page_bytes
                    first = os.pread(file, GEOMETRY.page_bytes, page * GEOMETRY.page_bytes)
                    assert one.checksums[:8] == checksum(first[: block.page_length_bytes(page)])
        assert found == DATA[100 : END - 7]


def test_what_lands_comes_as_bytes_and_what_is_stored_as_files(
    node: InProcessNode, tmp_path: Path
) -> None:
    node.put(DATA)
    block_bytes = GEOMETRY.block_bytes
    with RawClient(node).greeted() as tcp:
        tcp.read((block_bytes, 2 * block_bytes))
    with UnixRaw(tmp_path / "node.sock").greeted() as raw:
        for known in (False, True):
            raw.ask((100, END - 7), landed_as_bytes=True)
            found, last, ways = b"", False, set()
            while not last:
                with raw.head() as (head, body, files):
                    last = head.last
                    for one in head.segments:
                        ways.add((one.start // block_bytes, one.descriptor is not None))
                        if one.descriptor is None:
                            found += body
                        else:
                            found += os.pread(
                                files[one.descriptor], one.length_bytes, one.file_offset
                            )
            assert found == DATA[100 : END - 7]
            assert (1, True) in ways, "it was stored before"
            assert ((0, False) in ways) != known


@pytest.mark.parametrize("number", range(12))
def test_a_mixture_of_bytes_and_files_is_right_wherever_it_goes(
    node: InProcessNode, client: CacheClient, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    spans = [(0, 70_000), (1 << 20, (1 << 20) + 200_000), (2_200_000, END)]
    node.put(DATA)
    write = node.store.write
    taken = itertools.cycle([True] * (number % 3 + 1) + [False] * (number // 3))
    monkeypatch.setattr(node.store, "write", lambda *what: next(taken) and write(*what))
    for start, end in spans[number % 3 :]:
        assert client.read(URI, start, end) == DATA[start:end]
    match number % 4:
        case 0:
            buffer = bytearray(END)
            assert client.readinto(URI, buffer) == END
            assert buffer == DATA
        case 1:
            assert client.read_ranges(URI, spans) == [DATA[a:b] for a, b in spans]
        case 2:
            with client.map(URI) as region:
                assert region[:] == DATA
        case 3:
            with client.map(URI, 5) as region:  # no page of the system begins there
                assert region[:] == DATA[5:]
    assert client.read(URI) == DATA


def test_only_the_unix_lane_passes_files(node: InProcessNode) -> None:
    node.put(DATA)
    with RawClient(node).greeted() as tcp:
        for _ in range(2):
            tcp.ask(ReadRequest(NAME, ((0, None),), descriptors=True))
            assert tcp.answer()[1] == DATA


def test_more_files_than_one_message_holds_come_in_several(tmp_path: Path) -> None:
    small = Geometry(16 << 10, 4 << 10, 4 << 10, 16 << 10)
    data = pattern(600 * small.block_bytes + 5)
    with running(tmp_path / "data", unix=tmp_path / "s", geometry=small) as node:
        node.put(data)
        with CacheClient(f"unix://{tmp_path}/s") as client:
            for _ in range(2):
                assert client.read(URI) == data
                with client.map(URI) as region:
                    assert region[:] == data
        with UnixRaw(tmp_path / "s").greeted() as raw:
            raw.ask((0, None))
            counts = []
            for _ in range(3):
                with raw.head() as (head, _, files):
                    counts.append((len(files), len(head.segments)))
                    assert head.last == (len(counts) == 3)
    assert counts == [(253, 253), (253, 253), (95, 95)]


def test_ranges_of_one_block_share_a_descriptor(node: InProcessNode, tmp_path: Path) -> None:
    node.put(DATA)
    with UnixRaw(tmp_path / "node.sock").greeted() as raw:
        with RawClient(node).greeted() as tcp:
            tcp.read()
        raw.ask((0, 100_000), (200_000, 300_000), (1 << 20, 2 << 20), (300_000, 300_001))
        with raw.head() as (head, _, files):
            assert [one.descriptor for one in head.segments] == [0, 0, 1, 0]
            assert len(files) == 2


def test_what_the_store_would_not_take_comes_as_bytes(
    node: InProcessNode, client: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(DATA)
    write, refused = node.store.write, iter([False, True, False] * 100)
    monkeypatch.setattr(node.store, "write", lambda *what: False if next(refused) else write(*what))
    with client.map(URI) as region:
        assert region[:] == DATA
    assert client.read(URI) == DATA


def test_pending_frames_come_while_a_fill_is_waited_for(
    node: InProcessNode, tmp_path: Path
) -> None:
    node.put(DATA)
    with UnixRaw(tmp_path / "node.sock").greeted() as raw:
        with node.origin.holding(node.runner) as let_go:
            raw.ask((0, None))
            with raw.head() as (head, _, files):
                assert head.pending
                assert files == []
            let_go()
        last = False
        while not last:
            with raw.head() as (head, _, _):
                last = head.last


def test_files_are_closed_whatever_comes_of_the_answer(
    node: InProcessNode, client: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = node.put(DATA)
    assert client.read(URI) == DATA
    before = open_count()
    for number in range(20):
        with node.path_of(node.blocks(version)[1]).open("r+b") as file:
            file.seek(70_000)
            file.write(b"damaged, and found out")
        assert client.read(URI, number) == DATA[number:]
    with monkeypatch.context() as patch:
        patch.setattr("cachesvc_client.passed.os.preadv", lambda *_: 1 / 0)
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                client.read(URI)
    assert client.read(URI) == DATA
    until(lambda: open_count() <= before + 1, "no file stays open")


def test_a_file_that_cannot_be_opened_again_hangs_nobody(
    node: InProcessNode, client: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(DATA)
    assert client.read(URI) == DATA
    with monkeypatch.context() as patch:

        def short(pin: Pin) -> int:
            raise Unopened(pin, OSError(24, os.strerror(24)))

        patch.setattr("cachesvc.passing._reopened", short)
        assert client.read(URI) == DATA, "as bytes"
    assert node.count("device_healthy", device=str(node.directory)) == 1


def test_an_answer_in_flight_to_a_client_that_is_gone_leaves_nothing_open(
    node: InProcessNode, tmp_path: Path
) -> None:
    node.put(DATA)
    with RawClient(node).greeted() as tcp:
        tcp.read()
    before = open_count()
    for _ in range(50):
        with UnixRaw(tmp_path / "node.sock").greeted() as raw:
            raw.ask((0, None))
    until(lambda: open_count() <= before, "no descriptor is left")
