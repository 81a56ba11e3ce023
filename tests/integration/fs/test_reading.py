"""Reading through fsspec: the same answers as from the object itself, by both faces."""

from __future__ import annotations

import asyncio
import io
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cachesvc_client import ObjectChanged

from tests.integration.fs.conftest import BUCKET, DATA, Place

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from cachesvc_client.fs import CacheFileSystem  # noqa: E402
from fsspec.callbacks import Callback  # noqa: E402

BIG = f"{BUCKET}/big"
ENDS = [None, 0, 5, 8 << 20, len(DATA), len(DATA) + 9, -1, -100, -len(DATA), -len(DATA) - 5]


@pytest.mark.parametrize("start", ENDS)
def test_a_slice_is_what_python_makes_of_it(fs: CacheFileSystem, start: int | None) -> None:
    for end in ENDS:
        assert fs.cat_file(BIG, start, end) == DATA[start:end], (start, end)
    found = fs.cat_ranges([BIG] * len(ENDS), start, ENDS)
    assert found == [DATA[start:end] for end in ENDS]


def test_infos_say_what_the_origin_says(fs: CacheFileSystem, place: Place) -> None:
    info = fs.info(f"cachesvc://{BIG}")
    assert (info["name"], info["size"], info["type"]) == (BIG, len(DATA), "file")
    assert info["ETag"].startswith('"')
    assert abs((datetime.now(UTC) - info["LastModified"]).total_seconds()) < 3600
    assert fs.modified(BIG) == info["LastModified"]
    assert fs.info(f"{BUCKET}/dir") == {"name": f"{BUCKET}/dir", "size": 0, "type": "directory"}
    assert fs.info(BUCKET)["type"] == fs.info("")["type"] == "directory"
    assert fs.exists(BIG)
    assert fs.isfile(BIG)
    assert fs.isdir(f"{BUCKET}/dir/sub")
    assert not fs.exists(f"{BUCKET}/di")
    assert fs.size(BIG) == len(DATA)
    for path in (f"{BUCKET}/nothing", "no-bucket", "no-bucket/key"):
        assert not fs.exists(path)
        with pytest.raises(FileNotFoundError, match=path):
            fs.info(path)
    with pytest.raises(IsADirectoryError):
        fs.modified(f"{BUCKET}/dir")


def test_listings_are_those_of_a_file_system(fs: CacheFileSystem) -> None:
    base = f"{BUCKET}/dir"
    assert fs.ls(base, detail=False) == [f"{base}/a.txt", f"{base}/sub"]
    assert [info["type"] for info in fs.ls(base)] == ["file", "directory"]
    assert fs.ls(f"{base}/a.txt", detail=False) == [f"{base}/a.txt"]
    assert {"name": BUCKET, "size": 0, "type": "directory"} in fs.ls("")
    files = [f"{base}/a.txt", f"{base}/sub/b.txt", f"{base}/sub/deep/c.txt"]
    folders = [base, f"{base}/sub", f"{base}/sub/deep"]
    assert fs.find(base) == files
    assert fs.find(base, withdirs=True) == sorted(files + folders)
    assert fs.find(base, maxdepth=1) == files[:1]
    assert fs.find(base, maxdepth=2, withdirs=True) == sorted([*files[:2], *folders])
    assert fs.find(files[0]) == files[:1]
    assert fs.find(f"{BUCKET}/nothing") == []
    assert fs.find(base, detail=True)[files[0]]["size"] == len("content of dir/a.txt")
    assert fs.glob(f"{BUCKET}/d*/*.txt") == [files[0], f"{BUCKET}/dir2/d.txt"]
    assert fs.glob(f"{BUCKET}/**/c.txt") == files[2:]
    assert fs.glob(f"{BUCKET}/dir*") == [base, f"{BUCKET}/dir2", f"{BUCKET}/dirt"]
    assert fs.expand_path(f"{base}/s*", recursive=True) == [
        f"{base}/sub", f"{base}/sub/b.txt", f"{base}/sub/deep", f"{base}/sub/deep/c.txt",
    ]  # fmt: skip
    assert [one[0] for one in fs.walk(base)] == folders
    assert fs.du(base) == sum(len(f"content of {one[len(BUCKET) + 1 :]}") for one in files)
    with pytest.raises(FileNotFoundError):
        fs.ls(f"{BUCKET}/nothing")


def test_keys_are_taken_as_they_are(fs: CacheFileSystem, place: Place) -> None:
    keys = ["odd/a b+c%2Fü?#.txt", "odd//x", "odd/a=1/[b]"]
    for key in keys:
        place.origin.put(BUCKET, key, key.encode())
        assert fs.cat_file(f"{BUCKET}/{key}") == key.encode()
    assert fs.find(f"{BUCKET}/odd") == sorted(f"{BUCKET}/{key}" for key in keys)
    assert fs.ls(f"{BUCKET}/odd", detail=False) == [
        f"{BUCKET}/odd/a b+c%2Fü?#.txt",
        f"{BUCKET}/odd/a=1",
    ]


def test_listings_are_believed_until_they_are_invalidated(
    fs: CacheFileSystem, place: Place
) -> None:
    there = fs.ls(BUCKET, detail=False)
    place.origin.put(BUCKET, "later", b"x")
    assert fs.ls(BUCKET, detail=False) == there
    fs.invalidate_cache()
    assert f"{BUCKET}/later" in fs.ls(BUCKET, detail=False)
    assert f"{BUCKET}/later" in fs.ls(BUCKET, detail=False, refresh=True)


def test_thousands_of_ranges_are_one_request_to_each_owner(
    fs: CacheFileSystem, place: Place
) -> None:
    fs.cat_file(BIG)
    chance = random.Random(3)
    starts = [chance.randrange(len(DATA) - 500) for _ in range(3000)]
    ends = [start + chance.randrange(500) for start in starts]
    gets, reads = place.origin_reads(), place.node_reads()
    found = fs.cat_ranges([BIG] * 3000, starts, ends)
    assert found == [DATA[start:end] for start, end in zip(starts, ends, strict=True)]
    assert place.origin_reads() == gets
    assert place.node_reads() - reads <= 3


def test_ranges_of_many_objects_come_in_order_with_errors_in_their_place(
    fs: CacheFileSystem,
) -> None:
    paths = [BIG, f"{BUCKET}/nothing", f"{BUCKET}/dirt", BIG, BUCKET]
    found = fs.cat_ranges(paths, [1, 0, 3, 0, 0], [4, 9, None, 2, 1])
    assert (found[0], found[2], found[3]) == (DATA[1:4], b"tent of dirt", DATA[:2])
    assert isinstance(found[1], FileNotFoundError)
    assert isinstance(found[4], IsADirectoryError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths[:2], 0, 1, on_error="raise")
    with pytest.raises(ValueError, match="give as many each"):
        fs.cat_ranges([BIG], [1, 2], [3])
    with pytest.raises(TypeError, match="give a list"):
        fs.cat_ranges(BIG, 0, 1)


def test_a_file_reads_like_a_local_one(fs: CacheFileSystem, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(DATA)
    chance = random.Random(4)
    for cache_type in ("paced", "none", "readahead", "bytes"):
        with fs.open(BIG, cache_type=cache_type) as file, (tmp_path / "big").open("rb") as local:
            assert file.size == len(DATA)
            assert file.blocksize == 8 << 20
            for _ in range(60):
                if chance.random() < 0.5:
                    start = chance.randrange(len(DATA) + 10)
                    assert file.seek(start) == local.seek(start)
                count = chance.choice([0, 1, 10, 70_000, 1 << 20, 9 << 20])
                if chance.random() < 0.5:
                    assert file.read(count) == local.read(count)
                else:
                    ours, theirs = bytearray(count), bytearray(count)
                    assert file.readinto(ours) == local.readinto(theirs)
                    assert ours == theirs
                assert file.tell() == local.tell()
            file.seek(-7, 2)
            assert file.read() == DATA[-7:]
            assert file.read(1) == b""


def test_lines_and_text_and_compression(fs: CacheFileSystem) -> None:
    with fs.open(f"{BUCKET}/dirt", "r", encoding="ascii") as file:
        assert file.readlines() == ["content of dirt"]
    with io.TextIOWrapper(fs.open(BIG), encoding="latin-1", newline="\n") as file:
        lines = [next(file) for _ in range(5)]
    assert lines == io.TextIOWrapper(io.BytesIO(DATA), "latin-1", newline="\n").readlines()[:5]


def test_reading_on_asks_for_more_and_more_and_jumping_about_for_little(
    fs: CacheFileSystem,
) -> None:
    with fs.open(BIG) as file:
        while file.read(10_000):
            pass
        assert file.cache.total_requested_bytes == len(DATA)
        assert file.cache.miss_count < 15
    with fs.open(BIG) as file:
        for start in range(len(DATA) - 100, 0, -1_000_000):
            file.seek(start)
            assert file.read(50) == DATA[start : start + 50]
        assert file.cache.total_requested_bytes <= 21 * (64 << 10)


def test_columns_of_a_table_are_read_without_the_others(fs: CacheFileSystem, place: Place) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    numbers = list(range(200_000))
    table = pyarrow.table({"part": [one % 3 for one in numbers], "name": list(map(str, numbers))})
    buffer = io.BytesIO()
    parquet.write_table(
        table, buffer, row_group_size=20_000, compression="none", use_dictionary=False
    )
    place.origin.put(BUCKET, "columns.parquet", buffer.getvalue())
    with fs.open(f"{BUCKET}/columns.parquet") as file:
        assert parquet.read_table(file, columns=["name"]).equals(table.select(["name"]))
        assert file.cache.total_requested_bytes < file.size * 3 / 4


def test_an_open_file_holds_to_its_version(fs: CacheFileSystem, place: Place) -> None:
    place.origin.put(BUCKET, "changing", b"first" * 1000)
    path = f"{BUCKET}/changing"
    with fs.open(path) as file:
        place.origin.put(BUCKET, "changing", b"other" * 1000)
        with pytest.raises(ObjectChanged):
            file.read()
    fs.invalidate_cache(path)
    with fs.open(path) as file:
        assert file.read() == b"other" * 1000
        place.origin.put(BUCKET, "changing", b"third" * 1000)
        file.seek(0)
        assert file.read() == b"other" * 1000, "the bytes of its version are there"


def test_the_key_of_an_object_changes_with_its_bytes(fs: CacheFileSystem, place: Place) -> None:
    place.origin.put(BUCKET, "keyed", b"1")
    path = f"{BUCKET}/keyed"
    before = fs.ukey(path)
    assert before == fs.ukey(path)
    place.origin.put(BUCKET, "keyed", b"2")
    fs.invalidate_cache(path)
    assert fs.ukey(path) != before
    assert fs.checksum(path) == int(fs.ukey(path), 16)


class Told(Callback):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def relative_update(self, inc: int = 1) -> None:
        self.steps.append(inc)


def test_files_are_fetched_with_a_callback(fs: CacheFileSystem, tmp_path: Path) -> None:
    told = Told()
    fs.get_file(BIG, str(tmp_path / "a" / "big"), callback=told)
    assert (tmp_path / "a" / "big").read_bytes() == DATA
    assert told.size == sum(told.steps) == len(DATA)
    outside = io.BytesIO()
    fs.get_file(BIG, outside)
    assert outside.getvalue() == DATA
    fs.get(f"{BUCKET}/dir", str(tmp_path / "dir"), recursive=True)
    assert (
        tmp_path / "dir" / "sub" / "deep" / "c.txt"
    ).read_bytes() == b"content of dir/sub/deep/c.txt"
    with pytest.raises(FileNotFoundError):
        fs.get_file(f"{BUCKET}/nothing", str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_the_asynchronous_face_gives_the_same(place: Place, tmp_path: Path) -> None:
    async def work() -> None:
        fs = place.fs(asynchronous=True)
        assert fs.loop is None
        assert (await fs._info(BIG))["size"] == len(DATA)
        assert await fs._cat_file(BIG, -5, None) == DATA[-5:]
        assert await fs._cat_ranges([BIG, BIG], [0, -3], [3, None]) == [DATA[:3], DATA[-3:]]
        assert await fs._find(f"{BUCKET}/dir", maxdepth=1) == [f"{BUCKET}/dir/a.txt"]
        assert await fs._glob(f"{BUCKET}/dir*/*.txt") == fsspec_like
        assert await fs._ls(f"{BUCKET}/dir2", detail=False) == [f"{BUCKET}/dir2/d.txt"]
        assert await fs._exists(BIG)
        assert not await fs._isdir(BIG)
        assert await fs._cat([f"{BUCKET}/dirt", f"{BUCKET}/dir/a.txt"]) == {
            f"{BUCKET}/dirt": b"content of dirt", f"{BUCKET}/dir/a.txt": b"content of dir/a.txt",
        }  # fmt: skip
        await fs._get_file(BIG, str(tmp_path / "big"))
        assert (tmp_path / "big").read_bytes() == DATA
        async with await fs.open_async(BIG) as file:
            assert await file.read(10) == DATA[:10]
            assert len(await file.read()) == len(DATA) - 10
        with pytest.raises(FileNotFoundError):
            await fs._cat_file(f"{BUCKET}/nothing")
        fs.client.close()

    fsspec_like = [f"{BUCKET}/dir/a.txt", f"{BUCKET}/dir2/d.txt"]
    asyncio.run(work())


def test_it_is_found_by_its_name(place: Place) -> None:
    with fsspec.open(f"cachesvc://{BIG}", **place.options) as file:
        assert file.read(100) == DATA[:100]
        assert file.full_name == f"cachesvc://{BIG}"
    assert fsspec.filesystem("cachesvc", **place.options).protocol[0] == "cachesvc"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"requester_pays": True}, "'requester_pays'"),
        ({"client_kwargs": {"api_version": "x"}}, "'api_version'"),
        ({"version_aware": True}, "'version_aware'"),
    ],
)
def test_what_the_cache_cannot_heed_is_refused(
    place: Place, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(TypeError, match=why):
        place.fs(**options)
