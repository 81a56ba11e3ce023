"""A pipe, or a link that leads nowhere, where a folder of blocks belongs, makes way for the folder.

Story: only a plain file did; anything else took the whole device out of use, at the scan or at the
first write.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cachesvc.disk.nvme import NvmeDisk

ID = bytes.fromhex("ab" * 16)


def _dangling(folder: Path) -> None:
    folder.symlink_to("/nowhere/at/all")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder)


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("put", [_dangling, _pipe, Path.touch])
def test_an_odd_entry_makes_way(tmp_path: Path, put: Callable[[Path], None], scanned: bool) -> None:
    with closing(NvmeDisk(tmp_path)) as disk:
        put(tmp_path / "blocks" / "ab")
        if scanned:
            assert list(disk.scan()) == []
        disk.create(ID).close()
        assert list(disk.scan()) == [ID]
