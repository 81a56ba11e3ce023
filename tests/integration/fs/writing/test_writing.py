"""Writing through fsspec: to the origin, at once seen by everybody, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import Cluster
from tests.integration.fs.moto import file_system
from tests.support import pattern

pytest.importorskip("fsspec", reason="fsspec is not installed")

from cachesvc_client.fs import CacheFileSystem, listing
from cachesvc_client.fs.writing import LEAST_PART_BYTES, PART_BYTES
from fsspec.dircache import DirCache

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


def test_two_threads_forget_the_same_listing(fs: CacheFileSystem) -> None:
    class Raced(DirCache):  # type: ignore[misc]
        """Whoever looks finds it, and by then another has taken it out."""

        def __getitem__(self, path: str) -> Any:
            found = super().__getitem__(path)
            del self[path]
            return found

    fs.dircache = Raced()
    fs.dircache[f"{BUCKET}/raced"] = fs.dircache[""] = []
    fs.invalidate_cache(f"{BUCKET}/raced")
    assert list(fs.dircache) == []
