"""Block files that are not what they should be never show through the gRPC service."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachesvc.disk.nvme import NvmeFile
from tests.integration.inprocess import InProcessNode
from tests.integration.service.calls import read
from tests.integration.service.sample import DATA, FOREVER


def damages() -> dict[str, Callable[[Path], None]]:
    def flipped(at: int) -> Callable[[Path], None]:
        def damage(path: Path) -> None:
            with path.open("r+b") as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 0x20]))

        return damage

    def zeroed(path: Path) -> None:
        with path.open("r+b") as file:
            file.write(bytes(1 << 20))

    return {
        "first byte": flipped(0),
        "middle": flipped(500_000),
        "last byte": flipped((1 << 20) - 1),
        "zeroed": zeroed,
        "cut": lambda path: os.truncate(path, 300_000),
        "emptied": lambda path: os.truncate(path, 0),
        "trailer": flipped((1 << 20) + 50),
    }


@pytest.mark.parametrize("damage", damages().values(), ids=damages().keys())
@pytest.mark.parametrize("wanted", [(0, FOREVER), (0, 1 << 20), (490_000, 510_000), (7, 2_000_000)])
def test_a_damaged_block_file_never_gives_a_wrong_byte(
    node: InProcessNode, stub: Any, damage: Callable[[Path], None], wanted: tuple[int, int]
) -> None:
    version = node.put(DATA)
    assert read(stub) == DATA
    damage(node.path_of(node.blocks(version)[0]))
    for _ in range(2):
        assert read(stub, wanted) == DATA[wanted[0] : wanted[1]]
    assert read(stub) == DATA
    assert node.count("device_healthy", device=str(node.directory)) == 1


@pytest.mark.parametrize("wanted", [(0, FOREVER), (5, 90)])
def test_a_disk_that_fails_while_reading_is_replaced_by_the_origin(
    node: InProcessNode, stub: Any, wanted: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put(DATA)
    assert read(stub) == DATA

    def fail(*_: object, **_named: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(NvmeFile, "pread", fail)
    monkeypatch.setattr(NvmeFile, "readinto", fail)
    monkeypatch.setattr(NvmeFile, "readinto", fail)
    assert read(stub, wanted) == DATA[wanted[0] : wanted[1]]
    assert node.count("device_healthy", device=str(node.directory)) == 0
