"""A real file system that fails under a node that serves: no wrong byte, no failed read.

Rules: needs root, ext4 and loop devices; skips without. The image, its mount and its loop device
are this test's own and go with it.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.support import until

MIB = 1 << 20
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN: every later operation fails with EIO
CONTENTS = {f"s3://b/{n}": random.Random(n).randbytes(9 * MIB + n) for n in range(8)}
OLD, NEW = list(CONTENTS)[:4], list(CONTENTS)[4:]


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[DevOrigin]:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as one:
        for uri, content in CONTENTS.items():
            one.put("b", uri.rpartition("/")[2], content)
        yield one


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system that turns read-only at its first error, where node-0 has its data."""
    image, folder = tmp_path / "image", tmp_path / "node-0"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    for command in (
        ["mkfs.ext4", "-q", str(image)],
        ["mount", "-o", "loop,errors=remount-ro", str(image), str(folder)],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no file system can be made and mounted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def read_only(folder: Path) -> None:
    """What ext4 does to itself when it finds an error, open files or not."""
    found = subprocess.run(
        ["findmnt", "-no", "SOURCE", str(folder)], check=True, capture_output=True, text=True
    )
    trigger = Path("/sys/fs/ext4") / Path(found.stdout.strip()).name / "trigger_fs_error"
    if not trigger.exists():
        pytest.skip(f"this kernel has no {trigger}")
    trigger.write_text("test")
    with pytest.raises(OSError, match="Read-only"):
        (folder / "probe").touch()


def broken(folder: Path) -> None:
    """Every operation fails with EIO from now on, on files that are open too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", 2))
    except OSError as error:
        pytest.skip(f"ext4 cannot be shut down here: {error}")
    finally:
        os.close(handle)


@pytest.mark.slow
@pytest.mark.parametrize("fail", [read_only, broken])
def test_reads_go_on_when_the_device_fails_under_load(
    tmp_path: Path, origin: DevOrigin, mounted: Path, fail: Callable[[Path], None]
) -> None:
    with Cluster(tmp_path, origin.url, count=1) as cluster, cluster.client() as client:
        for uri in OLD:
            assert client.read(uri) == CONTENTS[uri]
        node, stop, done = cluster.nodes[0], threading.Event(), [0] * 3
        assert node.metric("device_healthy") == 1

        def load(who: int) -> None:
            chance = random.Random(who)
            with cluster.client() as mine:
                while not stop.is_set():
                    uri = chance.choice(OLD)
                    start = chance.randrange(9 * MIB)
                    end = start + chance.choice((10, 70_000, 4 * MIB))
                    assert mine.read(uri, start, end) == CONTENTS[uri][start:end]
                    done[who] += 1

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(load, who) for who in range(3)]
            try:
                until(lambda: min(done) > 2, "all readers read")
                fail(mounted)
                for uri in NEW:
                    assert client.read(uri) == CONTENTS[uri]
                since = list(done)
                until(
                    lambda: all(now > then + 2 for now, then in zip(done, since, strict=True)),
                    "all readers read on",
                )
            finally:
                stop.set()
            for reader in readers:
                reader.result()
        assert node.metric("device_healthy") == 0
        assert node.metric("stored_bytes") == 0
        assert "device taken out of use" in node.log()
        for uri, content in CONTENTS.items():
            assert client.read(uri) == content
