"""Mapping the same bytes again: no page is checked twice, and whatever changed is noticed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cachesvc_client import CacheClient, addresses, passed, verified
from xxhash import xxh3_64_intdigest

from cachesvc.core.memory import address_of
from tests.integration.inprocess import GEOMETRY, InProcessNode, running
from tests.integration.lane.sample import DATA, END
from tests.support import NAME, until

pytestmark = pytest.mark.usefixtures("copied_from_files")

URI = str(NAME)
PAGE_COUNT = -(-END // GEOMETRY.page_bytes)


class Checks(list[int]):
    """The lengths of what was hashed since `of` was asked last."""

    def of(self, work: Callable[[], object]) -> int:
        self.clear()
        work()
        return len(self)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    """Counts; and files count as settled at once."""
    checks = Checks()

    def counted(data: memoryview) -> int:
        checks.append(len(data))
        return xxh3_64_intdigest(data)

    monkeypatch.setattr(passed, "xxh3_64_intdigest", counted)
    monkeypatch.setattr(verified, "SETTLED_NS", 0)
    return checks


@pytest.fixture
def filled(node: InProcessNode, client: CacheClient) -> InProcessNode:
    node.put(DATA)
    assert client.read(URI) == DATA
    return node


def mapping(client: CacheClient, start: int = 0, end: int | None = None) -> Callable[[], None]:
    def work() -> None:
        with client.map(URI, start, end) as region:
            assert region[:] == DATA[start:end]

    return work


def test_no_page_is_checked_twice(
    filled: InProcessNode, client: CacheClient, checks: Checks
) -> None:
    assert checks.of(mapping(client)) == PAGE_COUNT
    for start, end in [(0, None), (0, None), (4096, 2_500_000), (2 << 20, None)]:
        assert checks.of(mapping(client, start, end)) == 0
    with CacheClient(f"unix://{filled.directory.parent}/node.sock") as other:
        assert checks.of(mapping(other)) == PAGE_COUNT, "another client checks for itself"


def test_what_is_passed_is_asked_for_at_once(filled: InProcessNode) -> None:
    unix = f"unix://{filled.directory.parent}/node.sock"
    asks = {}
    for endpoint in unix, f"127.0.0.1:{filled.lane_port}":
        with CacheClient(endpoint, ask_max_bytes=1 << 20) as client:
            client.stat(URI)
            for start in 0, 1:
                before = filled.count("requests_total", op="read", result="hit")
                mapping(client, start)()
                asks[endpoint.split(":")[0], start] = (
                    filled.count("requests_total", op="read", result="hit") - before
                )
    assert asks == {("unix", 0): 1, ("unix", 1): 4, ("127.0.0.1", 0): 4, ("127.0.0.1", 1): 4}


def test_parts_add_up(filled: InProcessNode, client: CacheClient, checks: Checks) -> None:
    assert checks.of(mapping(client, 0, 1 << 20)) == 64
    assert checks.of(mapping(client, 3 << 20, None)) == PAGE_COUNT - 3 * 64
    assert checks.of(mapping(client, 0, 1 << 20)) == 0
    mapping(client)()
    assert checks.of(mapping(client)) == 0


def test_copies_are_checked_always(
    filled: InProcessNode, client: CacheClient, checks: Checks
) -> None:
    mapping(client)()
    for _ in range(2):
        assert checks.of(lambda: client.read(URI)) == PAGE_COUNT


def test_a_file_just_written_is_checked_again(
    filled: InProcessNode, client: CacheClient, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "SETTLED_NS", 3600 * 10**9)
    for _ in range(2):
        assert checks.of(mapping(client)) == PAGE_COUNT


def test_a_page_that_had_to_be_read_from_the_disk_is_checked_again(
    filled: InProcessNode, client: CacheClient, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping(client)()
    bring_in = addresses.bring_in
    monkeypatch.setattr(addresses, "bring_in", lambda *where: bring_in(*where) or True)
    assert checks.of(mapping(client)) == PAGE_COUNT
    monkeypatch.undo()


def test_the_kernel_says_what_it_had_to_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.write(DATA)
        file.flush()
        for wanted in False, True, False:
            if wanted:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                try:
                    os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
                except BlockingIOError:
                    pass
                else:
                    pytest.skip("this file system keeps its pages in memory")
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
                assert addresses.bring_in(address_of(memory), len(DATA)) == wanted


def written(path: Path) -> None:
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, 66_000)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), 66_000)


def through_a_mapping(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[66_000] ^= 1
        memory.flush()


def cut_and_made_long_again(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, 66_000)
    os.truncate(path, size)


def dated_back(path: Path) -> None:
    before = path.stat()
    written(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "damage", [written, through_a_mapping, cut_and_made_long_again, dated_back]
)
@pytest.mark.parametrize("held", [False, True])
def test_damage_between_two_mappings_is_noticed(
    filled: InProcessNode,
    client: CacheClient,
    checks: Checks,
    damage: Callable[[Path], None],
    held: bool,
) -> None:
    mapping(client)()
    assert checks.of(mapping(client)) == 0
    gets, earlier = len(filled.origin.gets), client.map(URI)
    path = filled.path_of(filled.blocks(earlier.version)[1])
    if not held:
        earlier.close()
    ticked(path)
    damage(path)
    assert checks.of(mapping(client)) > 0
    assert len(filled.origin.gets) > gets, "it was fetched again"
    mapping(client)()
    assert checks.of(mapping(client)) == 0
    earlier.close()


def ticked(path: Path) -> None:
    """Wait until a write gets another time than the file has, where that is counted in ticks."""
    probe = path.parent.parent / "probe"

    def later() -> bool:
        probe.write_bytes(b"")
        return probe.stat().st_ctime_ns > path.stat().st_ctime_ns

    until(later, "the file system's clock goes on")


def test_a_file_put_in_another_s_place_is_checked(tmp_path: Path, checks: Checks) -> None:
    data, unix = tmp_path / "data", tmp_path / "node.sock"
    with CacheClient(f"unix://{unix}", refresh_ms=1) as client:
        with running(data, unix=unix) as node:
            version = node.put(DATA)
            mapping(client)()
            mapping(client)()
            path = node.path_of(node.blocks(version)[1])
        other = tmp_path / "other"
        other.write_bytes(path.read_bytes())
        written(other)
        os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        other.replace(path)
        with running(data, unix=unix) as node:
            node.put(DATA)
            assert checks.of(mapping(client)) > 0
            assert client.sources()["origin"] > END, "the block in its place was not believed"
