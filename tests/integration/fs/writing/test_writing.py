"""Writing through fsspec: to the origin, at once seen by everybody, all or nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.integration.cluster import Cluster
from tests.integration.fs.moto import file_system
from tests.support import pattern

pytest.importorskip("fsspec", reason="fsspec is not installed")

from cachesvc_client.fs import CacheFileSystem, listing, writing
from cachesvc_client.fs.writing import LEAST_PART_BYTES, PART_BYTES

BUCKET = "written"
PATH = f"{BUCKET}/some/key"


@pytest.fixture
def other(cluster: Cluster) -> Iterator[CacheFileSystem]:
    """A reader elsewhere."""
    other = file_system(cluster)
    yield other
    other.client.close()


def test_what_was_written_is_read_next(fs: CacheFileSystem, other: CacheFileSystem) -> None:
    for number in range(5):
        data = pattern(1000 + number, number)
        fs.pipe_file(PATH, data)
        assert fs.cat_file(PATH) == data
        other.client.forget()  # a client may believe for `revalidate`; the nodes may not
        assert other.cat_file(PATH) == data
        assert fs.info(PATH)["size"] == len(data)
    fs.rm_file(PATH)
    assert not fs.exists(PATH)
    other.client.forget()
    assert not other.exists(PATH)


@pytest.mark.slow
def test_large_files_are_uploaded_in_parts(fs: CacheFileSystem, tmp_path: Path) -> None:
    data = pattern(PART_BYTES + LEAST_PART_BYTES + 7)
    (tmp_path / "large").write_bytes(data)
    fs.put_file(str(tmp_path / "large"), PATH)
    assert fs.cat_file(PATH) == data
    with fs.open(PATH, "wb", block_size=LEAST_PART_BYTES) as file:
        for start in range(0, len(data), 1_000_003):
            file.write(data[start : start + 1_000_003])
        assert fs.cat_file(PATH) == data, "the old object, until it is closed"
        assert file.tell() == len(data)
    assert fs.info(PATH)["ETag"].endswith('-7"')
    assert fs.cat_file(PATH) == data
    with fs.open(PATH, "ab") as file:
        assert file.tell() == len(data)
        file.write(b"more")
    assert fs.cat_file(PATH) == data + b"more"
    fs.cp_file(PATH, PATH + ".copy")
    assert fs.cat_file(PATH + ".copy") == data + b"more"


def test_small_files_are_appended_to(fs: CacheFileSystem) -> None:
    for said in (b"one", b"two"):
        with fs.open(PATH, "ab") as file:
            file.write(said)
    assert fs.cat_file(PATH) == b"onetwo"


def test_a_file_that_failed_is_not_there(fs: CacheFileSystem) -> None:
    def fail(size_bytes: int) -> None:
        with fs.open(PATH, "wb", block_size=LEAST_PART_BYTES) as file:
            file.write(b"x" * size_bytes)
            raise RuntimeError("half-way")

    for size_bytes in (10, LEAST_PART_BYTES + 1):
        with pytest.raises(RuntimeError, match="half-way"):
            fail(size_bytes)
        assert not fs.exists(PATH)
    uploads = fs.client.ask_origin("s3://", "list_multipart_uploads", Bucket=BUCKET)
    assert uploads.get("Uploads", []) == []


def test_what_is_created_must_not_be_there(fs: CacheFileSystem) -> None:
    with fs.open(PATH, "xb") as file:
        file.write(b"mine")
    with pytest.raises(FileExistsError, match="is there already"):
        fs.open(PATH, "xb")
    with pytest.raises(FileExistsError):
        fs.pipe_file(PATH, b"other", mode="create")
    late = fs.open(PATH + ".2", "xb")
    late.write(b"late")
    fs.pipe_file(PATH + ".2", b"meanwhile")
    with pytest.raises(FileExistsError):
        late.close()
    assert fs.cat_file(PATH + ".2") == b"meanwhile"


def test_a_transaction_writes_at_its_end(fs: CacheFileSystem) -> None:
    with fs.transaction:
        with fs.open(PATH, "wb") as file:
            file.write(b"said")
        assert not fs.exists(PATH)
    assert fs.cat_file(PATH) == b"said"


def test_directories_go_with_all_that_is_in_them(fs: CacheFileSystem) -> None:
    fs.pipe({f"{BUCKET}/some/{name}": name.encode() for name in ("a", "b/c", "b/d/e")})
    fs.client.ask_origin("s3://", "put_object", Bucket=BUCKET, Key="some/b/", Body=b"")
    assert fs.find(f"{BUCKET}/some") == [f"{BUCKET}/some/{name}" for name in ("a", "b/c", "b/d/e")]
    fs.mv(f"{BUCKET}/some/a", f"{BUCKET}/some/z")
    assert fs.ls(f"{BUCKET}/some", detail=False) == [f"{BUCKET}/some/b", f"{BUCKET}/some/z"]
    fs.rm(f"{BUCKET}/some/b", recursive=True)
    assert fs.ls(f"{BUCKET}/some", detail=False) == [f"{BUCKET}/some/z"]
    with pytest.raises(FileNotFoundError):
        fs.rm(f"{BUCKET}/some/nothing", recursive=True)


def test_buckets_are_made_and_removed(fs: CacheFileSystem) -> None:
    fs.mkdir("made")
    assert fs.isdir("made")
    assert fs.ls("made") == []
    with pytest.raises(FileExistsError):
        fs.mkdir("made")
    fs.makedirs("made", exist_ok=True)
    fs.makedirs("made/below/it")
    fs.pipe_file("made/key", b"1")
    with pytest.raises(OSError, match="409"):
        fs.rmdir("made")
    fs.rm("made", recursive=True)
    assert not fs.exists("made")
    with pytest.raises(FileNotFoundError):
        fs.mkdir("unmade/key", create_parents=False)


def test_touching_makes_an_object_or_leaves_it(fs: CacheFileSystem) -> None:
    fs.touch(PATH)
    assert fs.size(PATH) == 0
    fs.pipe_file(PATH, b"full")
    fs.touch(PATH, truncate=False)
    assert fs.size(PATH) == 4


def test_the_asynchronous_face_writes_too(fs: CacheFileSystem) -> None:
    async def work() -> None:
        await fs._pipe_file(PATH, b"piped")
        assert await fs._cat_file(PATH) == b"piped"
        for size_bytes in (5, PART_BYTES + 5):
            async with await fs.open_async(PATH, "wb") as file:
                await file.write(b"x" * size_bytes)
            assert (await fs._info(PATH))["size"] == size_bytes
        await fs._rm(PATH)
        assert not await fs._exists(PATH)

    asyncio.run(work())


def test_refusals_are_permission_errors(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    fs = file_system(cluster)
    client = fs.client._live()._origin._made()
    answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}

    def refuse(**_: object) -> None:
        raise ClientError(answer, "PutObject")

    monkeypatch.setattr(client, "put_object", refuse)
    with pytest.raises(PermissionError, match="check the credentials"):
        fs.pipe_file(PATH, b"x")
    fs.client.close()


def test_a_listing_taken_before_a_change_is_not_kept(
    fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = listing.children

    def overtaken(*arguments: Any) -> Any:
        """A listing, and before its answer is here an object more: as of another thread."""
        found = taken(*arguments)
        monkeypatch.setattr(listing, "children", taken)
        fs.pipe_file(f"{BUCKET}/overtaking/second", b"2")
        return found

    fs.pipe_file(f"{BUCKET}/overtaking/first", b"1")
    monkeypatch.setattr(listing, "children", overtaken)
    assert fs.ls(f"{BUCKET}/overtaking", detail=False) == [f"{BUCKET}/overtaking/first"]
    assert len(fs.ls(f"{BUCKET}/overtaking", detail=False)) == 2


def test_an_append_that_cannot_read_leaves_the_object_as_it_was(
    fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> bytes:
        raise PermissionError("no GET for you")

    fs.pipe_file(PATH, b"there")
    monkeypatch.setattr(fs, "cat_file", refused)
    with pytest.raises(PermissionError, match="no GET"):
        fs.open(PATH, "ab")
    gc.collect()
    monkeypatch.undo()
    assert fs.cat_file(PATH) == b"there"


def test_appending_where_others_have_just_written_keeps_what_they_wrote(
    fs: CacheFileSystem, other: CacheFileSystem
) -> None:
    assert not fs.exists(PATH)
    with other.open(PATH, "wb") as file:
        file.write(b"theirs")
    with fs.open(PATH, "ab") as file:
        file.write(b" and mine")
    assert fs.cat_file(PATH) == b"theirs and mine"


def test_a_directory_is_no_object_that_is_appended_to(fs: CacheFileSystem) -> None:
    fs.pipe_file(PATH, b"in a directory")
    directory = PATH.rpartition("/")[0]
    with fs.open(directory, "ab") as file:
        file.write(b"beside it")
    assert fs.cat_file(directory) == b"beside it"
    assert fs.cat_file(PATH) == b"in a directory"


def test_a_text_file_that_failed_is_not_there(fs: CacheFileSystem) -> None:
    def fail() -> None:
        with fs.open(PATH, "w", encoding="latin-1") as file:
            file.write("half of ")
            file.flush()
            file.write("what there is")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    gc.collect()
    assert not fs.exists(PATH)
    with fs.open(PATH, "w", encoding="latin-1") as file:
        file.write("all of it")
    with fs.open(PATH, "r", encoding="latin-1") as file:
        assert file.read() == "all of it"


def test_parts_are_never_smaller_than_s3_takes(fs: CacheFileSystem) -> None:
    data = pattern(LEAST_PART_BYTES + 1)
    with fs.open(PATH, "wb", block_size=1 << 20) as file:
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])
    assert fs.cat_file(PATH) == data


def test_a_removal_that_is_cancelled_is_seen_once_it_is_over(
    fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, delete = Event(), Event(), writing.delete

    def held(*arguments: Any) -> None:
        begun.set()
        assert go.wait(60)
        delete(*arguments)

    async def work() -> None:
        removing = asyncio.create_task(fs._rm(PATH))
        assert await asyncio.to_thread(begun.wait, 60)
        removing.cancel()
        await asyncio.wait([removing], timeout=0.2)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await removing
        assert not fs.exists(PATH)
        assert fs.ls(f"{BUCKET}/some", detail=False) == [f"{BUCKET}/some/other"]

    for name in ("key", "other"):
        fs.pipe_file(f"{BUCKET}/some/{name}", b"there")
    assert len(fs.ls(f"{BUCKET}/some")) == 2
    monkeypatch.setattr(writing, "delete", held)
    asyncio.run(work())


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "w", "encoding": "nonsense"},
        {"mode": "w", "newline": "q"},
        {"mode": "w", "errors": 5},
        {"mode": "wb", "compression": "nonsense"},
        {"mode": "w+b"},
        {"mode": "z"},
    ],
    ids=str,
)
def test_a_file_that_could_not_be_opened_changes_nothing(
    fs: CacheFileSystem, wrong: dict[str, Any]
) -> None:
    fs.pipe_file(PATH, b"there")
    with pytest.raises((LookupError, ValueError, TypeError)):
        fs.open(PATH, **wrong)
    gc.collect()
    assert fs.cat_file(PATH) == b"there"


def test_an_interrupt_while_a_failed_file_is_let_go_does_not_have_it_written(
    fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_upload: writing.Upload) -> None:
        raise KeyboardInterrupt

    fs.pipe_file(PATH, b"there")
    file = fs.open(PATH, "wb", block_size=LEAST_PART_BYTES)
    abort = writing.Upload.abort
    monkeypatch.setattr(writing.Upload, "abort", interrupted)

    def fail() -> None:
        with file:
            file.write(bytes(LEAST_PART_BYTES + 1))
            raise RuntimeError("half-way")

    with pytest.raises(KeyboardInterrupt):
        fail()
    file.close()
    assert fs.cat_file(PATH) == b"there"
    abort(file._upload)


@pytest.mark.parametrize("way", ["pipe", "put"])
def test_a_cancelled_write_does_not_land_on_a_later_one(
    fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    begun, go, put_file = Event(), Event(), writing.put_file

    def held(*arguments: Any) -> None:
        monkeypatch.setattr(writing, "put_file", put_file)
        begun.set()
        assert go.wait(60)
        put_file(*arguments)

    async def work() -> None:
        first = fs._pipe_file(PATH, b"1") if way == "pipe" else fs._put_file(str(local), PATH)
        writing_it = asyncio.create_task(first)
        assert await asyncio.to_thread(begun.wait, 60)
        writing_it.cancel()
        await asyncio.wait([writing_it], timeout=0.2)
        assert not writing_it.done(), "else the next one could be overtaken"
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await writing_it
        await fs._pipe_file(PATH, b"2")
        assert await fs._cat_file(PATH) == b"2"

    local = tmp_path / "local"
    local.write_bytes(b"1")
    monkeypatch.setattr(writing, "put_file", held)
    asyncio.run(work())
