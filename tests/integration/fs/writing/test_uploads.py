"""Uploads in parts: objects of any size, and nothing left of one that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachesvc.core.errors import OriginError
from tests.support import pattern

pytest.importorskip("fsspec", reason="fsspec is not installed")

from cachesvc_client.fs import CacheFileSystem, writing
from cachesvc_client.fs.writing import LEAST_PART_BYTES

BUCKET = "uploads"
PATH = f"{BUCKET}/key"
PART = b"x" * LEAST_PART_BYTES


@pytest.fixture
def asked(fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the origin was asked for; of copies in parts also the version."""
    operations: list[str] = []
    ask = fs.client.ask_origin

    def noted(uri: str, operation: str, **parameters: Any) -> Any:
        operations.append(operation + parameters.get("CopySourceIfMatch", ""))
        return ask(uri, operation, **parameters)

    monkeypatch.setattr(fs.client, "ask_origin", noted)
    return operations


def refuse(fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch, wanted: str, nth: int) -> None:
    """The nth request of this operation fails."""
    ask, count = fs.client.ask_origin, 0

    def refusing(uri: str, operation: str, **parameters: Any) -> Any:
        nonlocal count
        count += operation == wanted
        if operation == wanted and count == nth:
            raise OriginError(f"{operation}: refused")
        return ask(uri, operation, **parameters)

    monkeypatch.setattr(fs.client, "ask_origin", refusing)


@pytest.mark.slow
def test_what_is_appended_to_is_copied_in_as_many_parts_as_it_takes(
    fs: CacheFileSystem, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pattern(4 * LEAST_PART_BYTES + 1)
    fs.pipe_file(PATH, data)
    etag = fs.info(PATH)["ETag"]
    monkeypatch.setattr(writing, "COPY_PART_BYTES", 2 * LEAST_PART_BYTES)
    with fs.open(PATH, "ab") as file:
        file.write(b"more")
    assert asked.count("upload_part_copy" + etag) == 3
    assert fs.cat_file(PATH) == data + b"more"


@pytest.mark.slow
def test_large_objects_are_copied_in_parts_of_one_version(
    fs: CacheFileSystem, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pattern(4 * LEAST_PART_BYTES + 1)
    fs.pipe_file(PATH, data)
    monkeypatch.setattr(writing, "COPY_PART_BYTES", 2 * LEAST_PART_BYTES)
    monkeypatch.setattr(writing, "MAX_COPY_BYTES", 2 * LEAST_PART_BYTES)
    fs.cp_file(PATH, PATH + ".copy")
    assert asked.count("upload_part_copy" + fs.info(PATH)["ETag"]) == 3
    assert fs.cat_file(PATH + ".copy") == data
    fs.rm_file(PATH + ".copy")


@pytest.mark.slow
def test_parts_grow_so_that_their_number_lasts(
    fs: CacheFileSystem, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PARTS_OF_A_SIZE", 2)
    monkeypatch.setattr(writing, "PART_BYTES", LEAST_PART_BYTES)
    data = pattern(6 * LEAST_PART_BYTES)  # in two parts of one size and two of twice as much

    async def write_async() -> None:
        async with await fs.open_async(PATH, "wb") as file:
            for start in range(0, len(data), LEAST_PART_BYTES):
                await file.write(data[start : start + LEAST_PART_BYTES])

    def write() -> None:
        with fs.open(PATH, "wb", block_size=LEAST_PART_BYTES) as file:
            for start in range(0, len(data), LEAST_PART_BYTES):
                file.write(data[start : start + LEAST_PART_BYTES])

    works: list[Callable[[], None]] = [lambda: asyncio.run(write_async()), write]
    for work in works:
        asked.clear()
        work()
        assert asked.count("upload_part") == 4
        assert fs.cat_file(PATH) == data


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "nth"), [("upload_part", 1), ("upload_part", 2),
                                                ("complete_multipart_upload", 1)])  # fmt: skip
def test_a_file_that_is_in_no_with_block_leaves_nothing_when_it_fails(
    fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch, operation: str, nth: int
) -> None:
    refuse(fs, monkeypatch, operation, nth)
    file = fs.open(PATH, "wb", block_size=LEAST_PART_BYTES)

    def write() -> None:
        for _ in range(3):
            file.write(PART)
        file.close()

    with pytest.raises(OriginError, match="refused"):
        write()
    with pytest.raises(ValueError, match="not in write mode"):
        file.write(PART)
    file.close()
    assert not fs.exists(PATH)


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["upload_part", "complete_multipart_upload"])
def test_so_does_one_of_the_asynchronous_face(
    fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr(writing, "PART_BYTES", LEAST_PART_BYTES)
    refuse(fs, monkeypatch, operation, 1)

    async def write(file: Any) -> None:
        await file.write(PART)
        await file.close()

    async def work() -> None:
        file = await fs.open_async(PATH, "wb")
        with pytest.raises(OriginError, match="refused"):
            await write(file)
        with pytest.raises(ValueError, match="closed"):
            await file.write(PART)
        await file.close()

    asyncio.run(work())
    assert not fs.exists(PATH)


@pytest.mark.slow
def test_an_append_that_cannot_copy_leaves_the_object_as_it_was(
    fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs.pipe_file(PATH, PART)
    refuse(fs, monkeypatch, "upload_part_copy", 1)
    with pytest.raises(OriginError, match="refused"):
        fs.open(PATH, "ab")
    assert fs.cat_file(PATH) == PART


@pytest.mark.slow
def test_a_local_file_that_cannot_be_put_leaves_nothing(
    fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(writing, "PART_BYTES", LEAST_PART_BYTES)
    (tmp_path / "large").write_bytes(PART * 2)
    refuse(fs, monkeypatch, "upload_part", 2)
    with pytest.raises(OriginError, match="refused"):
        fs.put_file(str(tmp_path / "large"), PATH)
    assert not fs.exists(PATH)
