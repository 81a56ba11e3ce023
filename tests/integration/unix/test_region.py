"""Regions over a node in the test's process: the same bytes, in place, whatever happens to them."""

from __future__ import annotations

import errno
import os
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from cachesvc_client import CacheClient, ObjectNotFound, RangeError, RegionRefused
from cachesvc_client.addresses import PAGE_BYTES
from cachesvc_client.region import EmptyRegion, Region

from cachesvc.core.types import ObjectName
from tests.integration.inprocess import InProcessNode, running
from tests.integration.lane.sample import DATA, END, RANGES, expected
from tests.support import NAME, pattern, until

URI = str(NAME)


def mappings(folder: Path) -> list[tuple[int, int]]:
    """What this process has mapped of the files in a folder: (address, length)."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if f" {folder}/" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            found.append((start, end - start))
    return found


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def filled(node: InProcessNode, client: CacheClient) -> Iterator[InProcessNode]:
    node.put(DATA)
    assert client.read(URI) == DATA
    yield node
    assert mappings(node.directory) == [], "nothing stays mapped"


def test_a_region_is_the_object_in_place(filled: InProcessNode, client: CacheClient) -> None:
    gets = len(filled.origin.gets)
    with client.map(URI) as region:
        assert isinstance(region, Region)
        assert len(region) == END
        assert memoryview(region).readonly
        assert region[:] == DATA
        assert region[70_000:70_100] == DATA[70_000:70_100]
        assert region.find(DATA[2_000_000:2_000_050]) == 2_000_000
        assert sum(length for _, length in mappings(filled.directory)) >= END
        assert len(mappings(filled.directory)) == 4, "one mapping a block"
        region.prefetch()
        region.prefetch(10_000, 2_000_000)
        region.prefetch(END, END + 5)
        assert URI in repr(region)
    assert region.closed
    assert "closed" in repr(region)
    assert len(filled.origin.gets) == gets


@pytest.mark.parametrize("hot", [True, False])
def test_any_range_gives_its_bytes(node: InProcessNode, client: CacheClient, hot: bool) -> None:
    node.put(DATA)
    if hot:
        assert client.read(URI) == DATA
    odd: list[tuple[int, int | None]] = [(4096, None), (8192, 999_999), (1, END - 1), (65_537, END)]
    for start, end in [*odd, *RANGES]:
        with client.map(URI, start, end) as region:
            assert bytes(memoryview(region)) == expected(start, end)
            assert region[:] == expected(start, end)
            assert len(region) == len(expected(start, end))


def test_a_start_within_a_system_page_is_received(
    filled: InProcessNode, client: CacheClient
) -> None:
    with client.map(URI, 1) as region:
        assert mappings(filled.directory) == []
        assert region[:] == DATA[1:]
    with client.map(URI, PAGE_BYTES) as region:
        assert len(mappings(filled.directory)) == 4


def test_a_cold_object_is_stored_first_and_mapped_then(
    node: InProcessNode, client: CacheClient
) -> None:
    node.put(DATA)
    with client.map(URI) as region:
        assert region[:] == DATA
        assert len(mappings(node.directory)) == 4
    assert node.origin.landed_bytes == END
    assert client.sources() == {"origin": END}


def test_a_block_that_is_present_in_part_is_completed(
    node: InProcessNode, client: CacheClient
) -> None:
    node.put(DATA)
    client.read(URI, 300_000, 300_010)
    client.read(URI, 2_500_000, 2_500_010)
    with client.map(URI) as region:
        assert region[:] == DATA
    assert node.origin.landed_bytes == END


def test_without_a_unix_lane_everything_is_received(node: InProcessNode) -> None:
    node.put(DATA)
    with CacheClient(f"127.0.0.1:{node.lane_port}") as client:
        for start, end in [(0, None), (3, 70_003), (4096, 2_000_001), (END, None)]:
            with client.map(URI, start, end) as region:
                assert region[:] == expected(start, end)
                assert memoryview(region).readonly
        assert mappings(node.directory) == []


def test_the_memory_is_sealed(filled: InProcessNode, client: CacheClient) -> None:
    for start in 0, 3:
        with client.map(URI, start) as region, pytest.raises(TypeError):
            memoryview(region)[5] = 1
        with client.map(URI, start):
            accesses = [
                line.split()[1]
                for line in Path("/proc/self/maps").read_text().splitlines()
                if f" {filled.directory}/" in line
            ]
            assert set(accesses) <= {"r--p"}


def test_an_empty_range_is_an_empty_region(node: InProcessNode, client: CacheClient) -> None:
    node.put(b"", ObjectName("bucket", "empty"))
    node.put(DATA)
    for uri, start, end in [("s3://bucket/empty", 0, None), (URI, 5, 5), (URI, END, None)]:
        with client.map(uri, start, end) as region:
            assert isinstance(region, EmptyRegion)
            assert (len(region), bytes(memoryview(region)), region[:]) == (0, b"", b"")
            region.prefetch()
            with pytest.raises(TypeError, match=f"send '{uri}'"):
                pickle.dumps(region)
        region.close()
        assert region.closed


def test_what_read_refuses_map_refuses_too(node: InProcessNode, client: CacheClient) -> None:
    node.put(DATA)
    with pytest.raises(ObjectNotFound):
        client.map("s3://bucket/none")
    for start, end in [(END + 1, None), (5, 4), (-1, None)]:
        with pytest.raises(RangeError):
            client.map(URI, start, end)


def test_a_view_keeps_the_memory_and_close_refuses(
    filled: InProcessNode, client: CacheClient
) -> None:
    region = client.map(URI)
    view = memoryview(region)[100:200]
    with pytest.raises(BufferError):
        region.close()
    assert view == DATA[100:200]
    view.release()
    region.close()
    region.close()
    with pytest.raises(ValueError, match="closed"):
        region[0]


def test_a_region_that_nobody_holds_is_unmapped_with_its_last_view(
    filled: InProcessNode, client: CacheClient
) -> None:
    view = memoryview(client.map(URI))
    assert view == DATA
    assert mappings(filled.directory) != []
    del view
    assert mappings(filled.directory) == []


def test_threads_that_close_at_once_unmap_once(filled: InProcessNode, client: CacheClient) -> None:
    failures: list[BaseException] = []
    for _ in range(50):
        region, start = client.map(URI), Barrier(4)
        neighbour = client.map(URI)  # takes the addresses of a region unmapped too early

        def close(region: Any = region, start: Barrier = start) -> None:
            try:
                start.wait()
                region.close()
            except BaseException as error:
                failures.append(error)

        threads = [Thread(target=close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert neighbour[:] == DATA
        neighbour.close()
    assert failures == []


def test_a_region_is_not_pickled_and_says_what_to_do(
    filled: InProcessNode, client: CacheClient
) -> None:
    with client.map(URI) as region, pytest.raises(TypeError, match=f"send '{URI}' and map it"):
        pickle.dumps(region)


def test_evicted_blocks_stay_where_they_are_mapped(tmp_path: Path) -> None:
    with (
        running(tmp_path / "data", unix=tmp_path / "s", capacity_bytes=5 << 20) as node,
        CacheClient(f"unix://{tmp_path}/s") as client,
    ):
        version = node.put(DATA)
        region = client.map(URI)
        for number in range(3):
            other = ObjectName("bucket", f"other{number}")
            node.put(pattern(4 << 20, seed=number), other)
            client.read(str(other))
        assert not any(node.path_of(block).exists() for block in node.blocks(version))
        assert region[:] == DATA
        with client.map(URI) as again:
            assert again[:] == DATA
        region.close()


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "holed"])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_damaged_block_is_noticed_and_fetched_again(
    filled: InProcessNode, client: CacheClient, damage: str, number: int
) -> None:
    version = client.map(URI).version
    path = filled.path_of(filled.blocks(version)[number])
    if damage == "flipped":
        with path.open("r+b") as file:
            file.seek(66_000)
            file.write(bytes([DATA[(number << 20) + 66_000] ^ 1]))
    else:
        os.truncate(path, {"cut": 50_000, "emptied": 0, "holed": 50_000}[damage])
        if damage == "holed":
            os.truncate(path, 1 << 21)
    gets, before = len(filled.origin.gets), open_count()
    with client.map(URI) as region:
        assert region[:] == DATA
        assert len(mappings(filled.directory)) == 3, "only the damaged one is received"
    with client.map(URI, 4096) as region:
        assert region[:] == DATA[4096:]
        assert len(mappings(filled.directory)) == 4
    assert len(filled.origin.gets) > gets
    until(lambda: open_count() <= before, "no descriptor is left")


def test_an_overwritten_object_is_mapped_in_one_version(
    node: InProcessNode, client: CacheClient
) -> None:
    node.put(DATA)
    client.stat(URI)
    newer = pattern(END + 70_000, seed=5)
    node.put(newer)
    with client.map(URI) as region:
        assert region[:] == newer
    node.put(DATA)  # the newer version is stored whole, and still believed in
    with client.map(URI) as region:
        assert region[:] == newer


@pytest.mark.parametrize("etag", ['W/"weak"', ""])
def test_an_object_without_a_strong_etag_is_received_in_one_get(
    node: InProcessNode, client: CacheClient, etag: str
) -> None:
    node.put(DATA, etag=etag)
    for start, end in [(0, None), (7, 70_000)]:
        with client.map(URI, start, end) as region:
            assert region[:] == expected(start, end)
    assert client.sources() == {"bypass": END + 70_000 - 7}


def failing(number: int) -> Any:
    def fail(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EFAULT, errno.EIO, 133])
def test_a_page_that_cannot_be_brought_is_an_error_of_the_read_and_made_good(
    filled: InProcessNode, client: CacheClient, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("cachesvc_client.addresses.bring_in", failing(number))
    with client.map(URI) as region:
        assert region[:] == DATA
        assert mappings(filled.directory) == []


def test_an_old_kernel_has_everything_copied(
    filled: InProcessNode, client: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachesvc_client.addresses.bring_in", failing(errno.EINVAL))
    with client.map(URI) as region:
        assert region[:] == DATA
        assert mappings(filled.directory) == []


def test_too_many_mappings_are_refused_before_anything_is_fetched(
    node: InProcessNode, client: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(DATA)
    monkeypatch.setattr("cachesvc_client.limits._FEW_COUNT", 2)
    with client.map(URI) as region:
        assert region[:] == DATA
    node.put(DATA, ObjectName("bucket", "new"))
    gets = len(node.origin.gets)
    monkeypatch.setattr("cachesvc_client.limits._max_count", lambda: 1100)
    said = r"s3://bucket/new: .* takes 5 mappings.*vm.max_map_count.*sysctl -w .*map\(uri, start"
    with pytest.raises(RegionRefused, match=said):
        client.map("s3://bucket/new")
    with client.map("s3://bucket/new", 0, 70_000) as part:
        assert part[:] == DATA[:70_000]
    assert len(node.origin.gets) - gets <= 1


def test_a_limited_address_space_is_refused_by_name(
    node: InProcessNode, client: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: (1 << 20, resource.RLIM_INFINITY))
        with pytest.raises(RegionRefused, match=r"RLIMIT_AS.*ulimit -v"):
            client.map(URI)
    assert node.origin.gets == []
    with monkeypatch.context() as patch:
        patch.setattr("cachesvc_client.addresses.lay", failing(errno.ENOMEM))
        with pytest.raises(RegionRefused, match=r"max_map_count"):
            client.map(URI)
    with client.map(URI) as region:
        assert region[:] == DATA


@pytest.mark.slow
def test_a_thousand_maps_leave_nothing_behind(filled: InProcessNode, client: CacheClient) -> None:
    before = open_count()
    for number in range(1000):
        with client.map(URI, number % 3 * 4096, 1 << 20) as region:
            assert region[-1] == DATA[(1 << 20) - 1]
    until(lambda: open_count() <= before, "no descriptor is left")
