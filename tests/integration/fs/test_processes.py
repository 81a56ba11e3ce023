"""One file system in many processes: forked, spawned, by a fork server, and pickled."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from tests.integration.fs.conftest import BUCKET, DATA, Place

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from cachesvc_client.fs import CacheFileSystem  # noqa: E402

BIG = f"{BUCKET}/big"
STARTS = ["fork", "spawn", "forkserver"]


def everything(fs: CacheFileSystem, file: Any = None) -> tuple[bool, str]:
    """Work of every kind, in whatever process: whether all of it was right."""
    right = [
        fs.cat_file(BIG, 5, 9_000_000) == DATA[5:9_000_000],
        fs.cat_ranges([BIG] * 3, [0, 100, -9], [10, 200, None]) == [
            DATA[:10], DATA[100:200], DATA[-9:],
        ],
        fs.glob(f"{BUCKET}/dir/*.txt") == [f"{BUCKET}/dir/a.txt"],  # on fsspec's event loop
        fs.cat([f"{BUCKET}/dirt", f"{BUCKET}/dir/a.txt"]) == {
            f"{BUCKET}/dirt": b"content of dirt", f"{BUCKET}/dir/a.txt": b"content of dir/a.txt",
        },
    ]  # fmt: skip
    with fs.open(BIG) as opened:
        right.append(opened.read() == DATA)
    if file is not None:
        file.seek(77)
        right.append(file.read(100_000) == DATA[77:100_077])
    return all(right), fs.__dask_tokenize__()


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_children_of_every_kind_use_the_parents_instance(place: Place, start: str) -> None:
    fs = place.fs()
    with fs.open(BIG) as file:
        assert file.read(50) == DATA[:50]
        assert everything(fs, file) == (True, fs.__dask_tokenize__())
        context = multiprocessing.get_context(start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
            with ProcessPoolExecutor(3, mp_context=context) as pool:
                found = list(pool.map(everything, [fs] * 6, [file] * 6))
        assert found == [(True, fs.__dask_tokenize__())] * 6
        assert everything(fs, file) == (True, fs.__dask_tokenize__()), "the parent goes on"
    fs.client.close()


@pytest.mark.slow
def test_the_instance_itself_lives_on_in_forked_children(place: Place) -> None:
    """Not pickled: the very object, with sockets, threads and a loop that only the parent has."""
    fs = place.fs()
    file = fs.open(BIG)
    assert everything(fs, file)[0]
    inherited = sockets()
    for _ in range(3):
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            said = b"?"
            try:
                kept = inherited <= sockets()
                said = b"right" if everything(fs, file)[0] and kept else b"wrong"
                said += b"" if inherited <= sockets() else b", sockets were closed"
            except BaseException as error:
                said = repr(error).encode()
            os.write(writing, said)
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            assert pipe.read() == b"right"
        os.waitpid(child, 0)
        assert everything(fs, file)[0], "the parent goes on"
    file.close()
    fs.client.close()


def sockets() -> set[tuple[int, int]]:
    """The open sockets of this process: number and inode."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.stat(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if (status.st_mode & 0o170000) == 0o140000:
            found.add((int(name), status.st_ino))
    return found


def test_a_loop_of_the_childs_own(place: Place) -> None:
    """The asynchronous face after a fork, in a loop that the child makes."""
    fs = place.fs(asynchronous=True)

    async def work() -> bool:
        return bool(await fs._cat_file(BIG, 1, 100) == DATA[1:100])

    assert asyncio.run(work())
    ours, theirs = socket.socketpair()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            ours.sendall(b"1" if asyncio.run(work()) else b"0")
        except BaseException:
            ours.sendall(b"?")
        os._exit(0)
    with ours, theirs:
        assert theirs.recv(1) == b"1"
        os.waitpid(child, 0)
    assert asyncio.run(work())
    fs.client.close()


def test_what_is_pickled_is_the_same(place: Place) -> None:
    fs = place.fs()
    again = pickle.loads(pickle.dumps(fs))
    assert again == fs
    assert hash(again) == hash(fs)
    other = CacheFileSystem(**place.options, parallel_count=2, skip_instance_cache=True)
    assert other != fs
    with fs.open(BIG) as file:
        file.seek(1000)
        twin = pickle.loads(pickle.dumps(file))
        assert twin.tell() == 1000
        assert twin.version == file.version
        assert twin.read(10) == DATA[1000:1010]
        twin.close()
    for one in (fs, other):  # `again` is fsspec's, which keeps it for whoever pickles another
        one.client.close()


def test_a_file_pickled_holds_to_its_version(place: Place) -> None:
    place.origin.put(BUCKET, "pickled", b"first" * 1000)
    fs = place.fs()
    with fs.open(f"{BUCKET}/pickled") as file:
        assert file.read(5) == b"first"
        place.origin.put(BUCKET, "pickled", b"other" * 1000)
        fs.invalidate_cache(f"{BUCKET}/pickled")
        with pickle.loads(pickle.dumps(file)) as twin:
            assert twin.read() == b"first" * 999
    fs.client.close()


@pytest.mark.slow
def test_dask_tokens_are_the_same_in_every_process(place: Place) -> None:
    tokenize = pytest.importorskip("dask.base", reason="dask is not installed").tokenize
    fs = fsspec.filesystem("cachesvc", **place.options)
    code = (
        "import sys, fsspec; from dask.base import tokenize;"
        f"fs = fsspec.filesystem('cachesvc', **{place.options!r});"
        "sys.stdout.write(tokenize(fs) + ' ' + fs.ukey(sys.argv[1]))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, BIG], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "12"
    ]  # fmt: skip
    assert said == [f"{tokenize(fs)} {fs.ukey(BIG)}"] * 2


def test_the_thin_client_imports_none_of_it() -> None:
    code = (
        "import sys; import cachesvc_client;"
        "heavy = {'fsspec', 'numpy', 'torch', 'botocore', 'rich', 'safetensors', 'tarfile'};"
        "sys.stdout.write(','.join(sorted(heavy & set(sys.modules))))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == ""
