"""Datasets under torch's DataLoader: forked and spawned workers, epochs, tar shards."""

from __future__ import annotations

import gc
import io
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from cachesvc_client import CacheClient, ObjectNotFound

from tests.integration.unix.processes import Host, host
from tests.support import pattern

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0+cpu")

from cachesvc_client.tensors import IterableS3Dataset, MapS3Dataset  # noqa: E402
from cachesvc_client.tensors.datasets import expanded  # noqa: E402
from cachesvc_client.tensors.tar_samples import CorruptShard, samples  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

OBJECTS = "s3://data/object-{00..11}"
SHARDS = "s3://data/shard-{0..4}.tar"
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
STARTS = ["fork", "spawn"]


def shard(number: int, mode: str = "w") -> bytes:
    """A tar archive of 20 samples of two files each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for one in range(20):
            for extension in ("txt", "CLS"):
                content = f"{number}/{one}.{extension}".encode() * (one + 1)
                member = tarfile.TarInfo(f"some/{number:03d}{one:03d}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    work = tmp_path_factory.mktemp("datasets")
    with host(work) as machine:
        folder = work / "origin" / "data"
        folder.mkdir()
        for number in range(12):
            (folder / f"object-{number:02d}").write_bytes(f"object {number}".encode())
        for number in range(5):
            (folder / f"shard-{number}.tar").write_bytes(shard(number))
        (folder / "shard.tar.gz").write_bytes(shard(9, "w:gz"))
        yield machine


@pytest.fixture
def client(machine: Host) -> Iterator[CacheClient]:
    with machine.client() as client:
        yield client


def loader(dataset: Any, start: str, workers: int = 2, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset, batch_size=None, num_workers=workers, multiprocessing_context=start, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_objects_by_number_in_workers(client: CacheClient, start: str) -> None:
    dataset = MapS3Dataset(OBJECTS, client=client, transform=bytes.decode)
    assert len(dataset) == 12
    assert dataset[3] == "object 3"
    found = list(loader(dataset, start, shuffle=False))
    assert found == [f"object {number}" for number in range(12)]
    assert dataset[4] == "object 4", "the parent goes on"


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_each_sample_is_read_by_one_worker_once(client: CacheClient, start: str) -> None:
    dataset = IterableS3Dataset(SHARDS, client=client)
    found = list(loader(dataset, start))
    keys = Counter(sample["__key__"] for sample in found)
    assert len(keys) == 100
    assert set(keys.values()) == {1}
    by_key = {sample["__key__"]: sample for sample in found}
    assert by_key["some/003007"] == {
        "__key__": "some/003007",
        "__url__": "s3://data/shard-3.tar",
        "txt": b"3/7.txt" * 8,
        "cls": b"3/7.CLS" * 8,
    }


@pytest.mark.slow
def test_an_epoch_has_an_order_of_its_own_which_workers_that_stay_see(client: CacheClient) -> None:
    dataset = IterableS3Dataset(SHARDS, client=client, shuffle=True, seed=7, buffer_count=30)
    epochs = []
    staying = loader(dataset, "fork", 2, persistent_workers=True)
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        epochs.append([sample["__key__"] for sample in staying])
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] == epochs[2] != epochs[1]
    assert epochs[0] != sorted(epochs[0])
    dataset.set_epoch(1)
    assert [sample["__key__"] for sample in loader(dataset, "spawn", 2)] == epochs[1]


@pytest.mark.slow
def test_eight_workers_read_what_is_cold_for_one_get(machine: Host, client: CacheClient) -> None:
    data = pattern(700_000, 5)
    machine.origin.put("data", "cold", data)
    dataset = MapS3Dataset(["s3://data/cold"] * 8, client=client)
    assert list(loader(dataset, "fork", 8)) == [data] * 8
    asked = [one for one in machine.origin.requests if one.key == "cold"]
    assert [one.range for one in asked if one.operation == "GetObject"] == [(0, len(data))]


def test_ranks_share_the_objects(client: CacheClient) -> None:
    found = [
        list(IterableS3Dataset(OBJECTS, client=client, shuffle=True, rank=rank, world_size=5))
        for rank in range(5)
    ]
    assert sorted(chain.from_iterable(found)) == sorted(
        f"object {number}".encode() for number in range(12)
    )
    assert max(map(len, found)) - min(map(len, found)) <= 1
    with pytest.raises(ValueError, match="rank is 5 of 5"):
        IterableS3Dataset(OBJECTS, client=client, rank=5, world_size=5)


def test_the_place_among_ranks_is_that_of_the_launcher(
    client: CacheClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    found = list(IterableS3Dataset(OBJECTS, client=client))
    assert found == [b"object 1", b"object 5", b"object 9"]


def test_a_client_of_the_environment_is_made_where_it_is_needed(
    machine: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHESVC_ENDPOINT", machine.endpoint)
    dataset = MapS3Dataset(["s3://data/object-05"])
    assert dataset[0] == b"object 5"
    assert list(loader(dataset, "spawn", 1)) == [b"object 5"]


def test_compressed_shards_are_read_too(client: CacheClient) -> None:
    assert len(list(IterableS3Dataset("s3://data/shard.tar.gz", client=client))) == 20


def test_samples_are_those_of_webdataset(client: CacheClient, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    odd = io.BytesIO()
    with tarfile.open(fileobj=odd, mode="w") as archive:
        for name in ("a.b.c", "a.B", "dir.x/a.b", "no-dot", "__meta__", "__keep__/x.y", "d/.hidden",
                     "a.b.c.d", "./e.f", "long/" * 40 + "g.h"):  # fmt: skip
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("a.link")
        link.type, link.linkname = tarfile.SYMTYPE, "a.b"
        archive.addfile(link)
    for number, data in enumerate((shard(3), odd.getvalue())):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(data)
        found = [dict(one) for one in samples("uri", io.BytesIO(data))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, of files that it leaves open
            theirs = list(webdataset.WebDataset(str(path), shardshuffle=False))
            gc.collect()
        assert theirs
        keys = {"__key__", "__url__", "__local_path__"}
        assert [{k: v for k, v in one.items() if k not in keys} for one in found] == [
            {k: v for k, v in one.items() if k not in keys} for one in theirs
        ]
        assert [one["__key__"] for one in found] == [one["__key__"] for one in theirs]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("k.tar", b""),
        ("k.tar", b"x" * 2000),
        ("k.tar", shard(1)[:700]),
        ("k.tar", shard(1, "w:gz")),
        ("k.tgz", shard(1)),
        ("k.tar.gz", shard(1, "w:gz")[:-9]),
        ("k.tar.xz", shard(1, "w:xz")[:-9]),
        ("k.tar.bz2", shard(1, "w:bz2")[:-9]),
    ],
)
def test_what_is_no_whole_archive_is_an_error(name: str, data: bytes) -> None:
    with pytest.raises(CorruptShard, match=f"s3://b/{name}: no whole tar archive"):
        list(samples(f"s3://b/{name}", io.BytesIO(data)))


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_compressed_archives_are_unpacked(kind: str) -> None:
    packed = io.BytesIO(shard(2, f"w:{kind}"))
    found = list(samples(f"s3://b/k.tar.{kind}", packed))
    assert len(found) == 20


def test_a_sample_with_the_same_file_twice_is_an_error() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a.b"), io.BytesIO())
    with pytest.raises(CorruptShard, match=r"sample 'a' has two files \.b"):
        list(samples("s3://b/k", io.BytesIO(buffer.getvalue())))


def test_an_error_of_a_worker_reaches_the_loader(client: CacheClient) -> None:
    with pytest.raises(ObjectNotFound, match="nothing"):
        list(loader(MapS3Dataset(["s3://data/nothing"], client=client), "fork", 1))


def test_braces_are_written_out() -> None:
    assert expanded("a-{8..10}") == ["a-8", "a-9", "a-10"]
    assert expanded(["x", "a-{08..10}-{1..2}"]) == [
        "x", "a-08-1", "a-08-2", "a-09-1", "a-09-2", "a-10-1", "a-10-2",
    ]  # fmt: skip
    assert expanded("a-{b}") == ["a-{b}"]
