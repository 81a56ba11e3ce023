"""What every Disk does alike: a directory and the one in memory. And what only a directory does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cachesvc.disk.base import Disk
from cachesvc.disk.memory import MemoryDisk
from cachesvc.disk.nvme import NvmeDisk

IDS = [bytes([first]) + bytes(range(1, 16)) for first in (0, 1, 127, 255)]
ID = IDS[2]


class DiskContract:
    """Subclass it with a fixture `disk`."""

    def test_a_created_file_is_empty_and_open_for_both_directions(self, disk: Disk) -> None:
        with closing(disk.create(ID)) as file:
            assert file.size_bytes() == 0
            assert file.pread(10, 0) == b""
            file.pwrite(b"hello", 0)
            assert file.pread(5, 0) == b"hello"

    def test_who_does_not_wait_gets_the_same_bytes_or_none(self, disk: Disk) -> None:
        with closing(disk.create(ID)) as file:
            file.pwrite(b"hello" * 2000, 0)
            for offset in (0, 1, 4_995):
                try:
                    data = file.pread(5_000, offset, wait=False)
                except BlockingIOError:  # the disk was not asked: some file systems always say so
                    continue
                assert data == file.pread(5_000, offset)

    def test_what_was_written_is_there_for_the_next_who_opens(self, disk: Disk) -> None:
        with closing(disk.create(ID)) as file:
            file.pwrite(memoryview(b"0123456789")[2:8], 0)
        with closing(disk.open(ID)) as file:
            assert file.pread(100, 0) == b"234567"
            assert file.pread(2, 3) == b"56"
            file.pwrite(b"XY", 2)
            assert file.pread(6, 0) == b"23XY67"

    def test_a_write_beyond_the_end_leaves_a_hole_of_zeros(self, disk: Disk) -> None:
        with closing(disk.create(ID)) as file:
            file.pwrite(b"end", 10_000)
            assert file.size_bytes() == 10_003
            assert file.pread(4, 9_998) == b"\0\0en"
            assert file.pread(10, 10_001) == b"nd"
            assert file.pread(10, 20_000) == b""

    def test_a_file_takes_at_least_the_sectors_of_its_data(self, disk: Disk) -> None:
        with closing(disk.create(ID)) as file:
            assert file.taken_bytes() == 0
            file.pwrite(bytes(5000), 0)
            assert file.taken_bytes() == 8192

    def test_two_handles_see_each_others_writes(self, disk: Disk) -> None:
        with closing(disk.create(ID)) as one, closing(disk.open(ID)) as other:
            one.pwrite(b"abc", 0)
            assert other.pread(3, 0) == b"abc"

    def test_a_missing_file_cannot_be_opened(self, disk: Disk) -> None:
        with pytest.raises(FileNotFoundError):
            disk.open(ID)

    def test_a_file_cannot_be_created_twice(self, disk: Disk) -> None:
        with closing(disk.create(ID)) as file:
            file.pwrite(b"kept", 0)
            with pytest.raises(FileExistsError):
                disk.create(ID)
            assert file.pread(4, 0) == b"kept"

    def test_unlinking_a_missing_file_is_fine(self, disk: Disk) -> None:
        disk.unlink(ID)

    def test_an_unlinked_file_keeps_its_bytes_for_who_has_it_open(self, disk: Disk) -> None:
        with closing(disk.create(ID)) as old:
            old.pwrite(b"old", 0)
            disk.unlink(ID)
            with pytest.raises(FileNotFoundError):
                disk.open(ID)
            with closing(disk.create(ID)) as new:
                new.pwrite(b"new", 0)
                old.pwrite(b"!", 3)
                assert old.pread(9, 0) == b"old!"
                assert new.pread(9, 0) == b"new"

    def test_a_scan_finds_all_files_and_only_those(self, disk: Disk) -> None:
        assert list(disk.scan()) == []
        for block_id in IDS:
            disk.create(block_id).close()
        disk.unlink(IDS[1])
        assert sorted(disk.scan()) == sorted({*IDS} - {IDS[1]})

    def test_files_may_come_and_go_during_a_scan(self, disk: Disk) -> None:
        for block_id in IDS:
            disk.create(block_id).close()
        scan = disk.scan()
        found = {next(scan)}
        for block_id in IDS:
            disk.unlink(block_id)
        disk.create(bytes(16)).close()
        found |= set(scan)
        assert found <= {*IDS, bytes(16)}


class TestMemoryDisk(DiskContract):
    @pytest.fixture
    def disk(self) -> Iterator[Disk]:
        disk = MemoryDisk()
        yield disk
        disk.close()
        assert disk.open_count == 0

    def test_writes_beyond_the_limit_fail(self) -> None:
        disk = MemoryDisk(limit_bytes=8192)
        with closing(disk.create(ID)) as file:
            file.pwrite(bytes(8192), 0)
            with pytest.raises(OSError, match="no space"):
                file.pwrite(b"x", 8192)

    def test_a_flipped_bit_is_that_bit(self) -> None:
        disk = MemoryDisk()
        with closing(disk.create(ID)) as file:
            file.pwrite(bytes(4), 0)
            disk.flip(ID, 11)
            assert file.pread(4, 0) == b"\0\x08\0\0"


class TestNvmeDisk(DiskContract):
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Disk]:
        disk = NvmeDisk(tmp_path / "data")
        yield disk
        disk.close()


def test_a_directory_that_another_process_holds_is_refused(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from cachesvc.disk.nvme import NvmeDisk\n"
        "disk = NvmeDisk(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError):
            NvmeDisk(tmp_path)
        other.kill()
        other.wait()
    NvmeDisk(tmp_path).close()  # a lock dies with its holder


def test_a_refused_directory_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with closing(NvmeDisk(tmp_path)), pytest.raises(BlockingIOError):
        NvmeDisk(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_scan_removes_what_is_not_named_like_a_block(tmp_path: Path) -> None:
    with closing(NvmeDisk(tmp_path)) as disk:
        disk.create(ID).close()
        shard = tmp_path / "blocks" / ID.hex()[:2]
        other = IDS[0].hex()
        strays = ["x", ".block", ID.hex(), f"{other}.block", f"{ID.hex().upper()}.block"]
        strays += [f"{ID.hex()}.block.tmp", f"{ID.hex()}00.block", " " + ID.hex() + ".block"]
        for stray in strays:
            (shard / stray).write_bytes(b"stray")
        assert list(disk.scan()) == [ID]
        assert [path.name for path in shard.iterdir()] == [f"{ID.hex()}.block"]


def test_a_scan_leaves_alone_what_stands_outside_the_shards(tmp_path: Path) -> None:
    with closing(NvmeDisk(tmp_path)) as disk:
        (tmp_path / "node-id").write_text("me")
        (tmp_path / "blocks" / "notes").write_text("mine")
        assert list(disk.scan()) == []
        assert (tmp_path / "node-id").read_text() == "me"
        assert (tmp_path / "blocks" / "notes").read_text() == "mine"


@pytest.mark.parametrize("gone", [f"blocks/{ID.hex()[:2]}", "blocks"])
def test_a_deleted_folder_is_made_again(tmp_path: Path, gone: str) -> None:
    with closing(NvmeDisk(tmp_path)) as disk:
        disk.create(ID).close()
        disk.unlink(ID)
        folder = tmp_path / gone
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir()
        folder.rmdir()
        assert list(disk.scan()) == []
        with closing(disk.create(ID)) as file:
            file.pwrite(b"again", 0)
        assert list(disk.scan()) == [ID]


def test_a_directory_in_a_block_s_place_can_be_unlinked(tmp_path: Path) -> None:
    with closing(NvmeDisk(tmp_path)) as disk:
        disk.create(ID).close()
        path = tmp_path / "blocks" / ID.hex()[:2] / f"{ID.hex()}.block"
        path.unlink()
        (path / "within").mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            disk.open(ID)
        disk.unlink(ID)
        assert not path.exists()
        disk.create(ID).close()


def test_sparse_files_take_what_they_hold(tmp_path: Path) -> None:
    with closing(NvmeDisk(tmp_path)) as disk, closing(disk.create(ID)) as file:
        file.pwrite(bytes(4096), 8 << 20)
        assert file.size_bytes() == (8 << 20) + 4096
        assert file.taken_bytes() < 1 << 20


def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        NvmeDisk(tmp_path / "file" / "data")
