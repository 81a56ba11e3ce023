"""Damaged block files: a miss, never a wrong byte."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from cachesvc.disk.memory import MemoryDisk
from tests.support import FILE_BYTES
from tests.unit.store.bench import BLOCK, BLOCKS, DATA, Bench, Damage, bytes_of, flip, path_of


def swap(path: Path) -> None:
    other = path_of(path.parent.parent, BLOCKS[1])
    assert other.exists()
    path.rename(path.with_suffix(".x"))
    other.rename(path)
    path.with_suffix(".x").rename(other)


def cut(to: int) -> Damage:
    return lambda path: os.truncate(path, to)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 4096)


def regrow(path: Path) -> None:
    """The data gains a sector before the trailer: the trailer is sound, the size is not."""
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + bytes(4096) + raw[4096:])


def directory(path: Path) -> None:
    path.unlink()
    (path / "deep").mkdir(parents=True)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


TRAILER_DAMAGE: dict[str, Damage] = {
    "flipped head": flip(4096 + 3),
    "flipped name": flip(4096 + 88 + 1024 + 2),
    "flipped page checksum": flip(4096 + 88 + 5),
    "flipped trailer checksum": flip(-1),
    "flipped padding": flip(-100),
    "names swapped": swap,
    "emptied": cut(0),
    "cut in the data": cut(300),
    "cut in the trailer": cut(8000),
    "cut to the trailer's size": cut(4096),
    "grown": grow,
    "grown before the trailer": regrow,
    "a directory": directory,
    "a link to itself": dangling,
    "a pipe": pipe,
}


@pytest.mark.parametrize("damage", TRAILER_DAMAGE.values(), ids=TRAILER_DAMAGE.keys())
@pytest.mark.parametrize("restarted", [False, True], ids=["known", "restarted"])
def test_a_damaged_file_is_a_miss_and_goes(
    nvme: tuple[Bench, Path], damage: Damage, restarted: bool
) -> None:
    bench, folder = nvme
    bench.open(max_idle=0)  # every pin opens the file anew
    bench.put(BLOCK)
    bench.put(BLOCKS[1])
    damage(path_of(folder, BLOCK))
    if restarted:
        bench.store.close()
        bench.open(max_idle=0)
    assert bench.store.pin(BLOCK) is None
    assert not os.path.lexists(path_of(folder, BLOCK))
    assert bench.count("corrupt_blocks_total", check="trailer") >= 1
    assert bench.count("device_healthy", device=bench.disks[0].name) == 1
    assert bench.put(BLOCK)
    assert bench.has(BLOCK)
    if damage is not swap:
        assert bench.has(BLOCKS[1])


def test_a_file_that_vanished_is_a_miss(nvme: tuple[Bench, Path]) -> None:
    bench, folder = nvme
    bench.open(max_idle=0)
    bench.put(BLOCK)
    path_of(folder, BLOCK).unlink()
    assert bench.store.pin(BLOCK) is None
    assert bench.store.stored_bytes == 0
    assert bench.count("evicted_bytes_total", reason="lost") == FILE_BYTES
    assert bench.put(BLOCK)
    assert bench.has(BLOCK)


def test_every_flipped_byte_of_the_data_is_noticed_by_its_page(
    memory: tuple[Bench, MemoryDisk],
) -> None:
    bench, disk = memory
    bench.put(BLOCK)
    pin = bench.store.pin(BLOCK)
    assert pin is not None
    with closing(pin):
        for position in range(BLOCK.length_bytes):
            disk.flip(BLOCK.id, 8 * position + position % 8)
            wrong = [page for page in range(8) if pin.page(page) is None]
            assert wrong == [position // 128]
            disk.flip(BLOCK.id, 8 * position + position % 8)
        assert bytes_of(pin, BLOCK) == DATA[:1024]


def test_a_dropped_block_is_gone_and_counted_once(bench: Bench) -> None:
    bench.put(BLOCK)
    one, two = bench.store.pin(BLOCK), bench.store.pin(BLOCK)
    assert one is not None
    assert two is not None
    bench.store.drop(one, "page")
    bench.store.drop(two, "page")
    assert bench.store.pin(BLOCK) is None
    assert list(bench.disks[0].scan()) == []
    assert bench.count("corrupt_blocks_total", check="page") == 1
    assert one.page(0) == DATA[:128]  # whoever holds it keeps the bytes
    one.close()
    two.close()


def test_dropping_an_old_pin_spares_the_block_that_replaced_it(bench: Bench) -> None:
    bench.put(BLOCK)
    old = bench.store.pin(BLOCK)
    assert old is not None
    bench.store.drop(old, "page")
    bench.put(BLOCK)
    bench.store.drop(old, "page")
    old.close()
    assert bench.has(BLOCK)
