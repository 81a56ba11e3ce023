"""Writes whose answer is lost, or that are cancelled half-way: whole objects or none, and no doubt
about whose they are.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from cachesvc.core.errors import CacheError, ObjectChanged, ObjectNotFound, OriginError

pytest.importorskip("fsspec", reason="fsspec is not installed")

from cachesvc_client.fs import CacheFileSystem, writing
from cachesvc_client.fs.writing import LEAST_PART_BYTES

BUCKET = "unknown"
PATH = f"{BUCKET}/key"
PART = b"x" * LEAST_PART_BYTES
GONE = ObjectNotFound("no such upload")


class Origin:
    """What the file system's origin is asked for (`ended`: in the order of the answers).

    lost: the operation whose first answer is lost, so that it is asked for a second time, with
    `meanwhile` done before that; `again`: what S3 says to that, where moto says it not. held: the
    operation that takes until `go` is set.
    """

    def __init__(self, fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost = self.held = ""
        self.meanwhile: Any = lambda: None
        self.again: CacheError | None = None
        self.started, self.go = threading.Event(), threading.Event()
        self.ended: list[str] = []
        self._ask = fs.client.ask_origin
        monkeypatch.setattr(fs.client, "ask_origin", self._answer)

    def _answer(self, uri: str, operation: str, **parameters: Any) -> Any:
        if operation == self.held:
            self.started.set()
            assert self.go.wait(60)
        if operation == self.lost:
            self._ask(uri, operation, **parameters)
            self.lost = ""
            self.meanwhile()
            if self.again is not None:
                raise self.again
        try:
            return self._ask(uri, operation, **parameters)
        finally:
            self.ended.append(operation)


@pytest.fixture
def origin(fs: CacheFileSystem, monkeypatch: pytest.MonkeyPatch) -> Origin:
    monkeypatch.setattr(writing, "PART_BYTES", LEAST_PART_BYTES)
    return Origin(fs, monkeypatch)


def write(fs: CacheFileSystem, mode: str, data: bytes) -> None:
    with fs.open(PATH, mode, block_size=LEAST_PART_BYTES) as file:
        file.write(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "mode", "data", "again"),
    [
        ("put_object", "xb", b"mine", None),
        ("complete_multipart_upload", "wb", PART, GONE),
        ("complete_multipart_upload", "xb", PART, GONE),
        ("complete_multipart_upload", "xb", PART, ObjectChanged("refused")),
    ],
)
def test_a_write_whose_answer_is_lost_is_its_own(
    fs: CacheFileSystem, origin: Origin, operation: str, mode: str, data: bytes,
    again: CacheError | None,
) -> None:  # fmt: skip
    origin.lost, origin.again = operation, again
    write(fs, mode, data)
    assert (origin.lost, fs.cat_file(PATH)) == ("", data)


def test_the_same_bytes_of_somebody_else_are_not_its_own(
    fs: CacheFileSystem, origin: Origin
) -> None:
    origin.lost = "put_object"

    def replace() -> None:
        fs.rm_file(PATH)
        fs.pipe_file(PATH, b"mine")

    origin.meanwhile = replace
    with pytest.raises(FileExistsError, match="is there already"):
        write(fs, "xb", b"mine")


@pytest.mark.slow
def test_an_upload_that_is_gone_without_its_object_is_an_error(
    fs: CacheFileSystem, origin: Origin
) -> None:
    origin.lost, origin.again = "complete_multipart_upload", GONE
    origin.meanwhile = lambda: fs.pipe_file(PATH, b"other")
    with pytest.raises(OriginError, match="its upload is gone"):
        write(fs, "wb", PART)
    assert fs.cat_file(PATH) == b"other"


@pytest.mark.slow
def test_equal_parts_of_somebody_else_are_not_its_own(fs: CacheFileSystem, origin: Origin) -> None:
    file = fs.open(PATH, "xb", block_size=LEAST_PART_BYTES)
    file.write(PART)
    write(fs, "wb", PART)
    with pytest.raises(FileExistsError, match="is there already"):
        file.close()


async def cancel(file: Any, step: Any, origin: Origin) -> None:
    """Cancel a step of a file twice while it is at the origin, where it goes on."""
    task = asyncio.create_task(step)
    assert await asyncio.to_thread(origin.started.wait, 60)
    for _ in range(2):
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.05)
        assert not done, "it goes on at the origin"
    origin.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await file.close()


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["create_multipart_upload", "upload_part"])
def test_a_cancelled_write_is_over_before_it_is_aborted(
    fs: CacheFileSystem, origin: Origin, operation: str
) -> None:
    async def work() -> None:
        file = await fs.open_async(PATH, "wb")
        origin.held = operation
        await cancel(file, file.write(PART), origin)
        with pytest.raises(ValueError, match="closed"):
            await file.write(PART)

    asyncio.run(work())
    assert origin.ended[-2:] == [operation, "abort_multipart_upload"]
    assert not fs.exists(PATH)


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["put_object", "complete_multipart_upload"])
def test_of_a_cancelled_close_the_object_is_there_at_once(
    fs: CacheFileSystem, origin: Origin, operation: str
) -> None:
    data = b"small" if operation == "put_object" else PART

    async def work() -> None:
        file = await fs.open_async(PATH, "wb")
        await file.write(data)
        origin.held = operation
        await cancel(file, file.close(), origin)

    asyncio.run(work())
    assert origin.ended[-1] == operation  # and nothing is aborted
    assert fs.cat_file(PATH) == data
