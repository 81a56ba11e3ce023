"""What an origin's answer promises of what was asked for: to the byte, or not at all."""

from __future__ import annotations

import pytest

from cachesvc.core.errors import RangeError
from cachesvc.core.promise import promised
from cachesvc.core.types import ByteRange, ObjectName

NAME = ObjectName("bucket", "key")


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "length_bytes", "size_bytes", "wanted"),
    [
        ((0, None), 200, None, 10, 10, ByteRange(0, 10)),
        ((0, 99), 200, None, 10, 10, ByteRange(0, 10)),
        ((0, None), 200, None, 0, 0, ByteRange(0, 0)),
        ((2, 5), 206, "bytes 2-4/10", 3, 10, ByteRange(2, 5)),
        ((2, 99), 206, "bytes 2-9/10", 8, 10, ByteRange(2, 10)),
        ((2, None), 206, "bytes 2-9/10", 8, 10, ByteRange(2, 10)),
    ],
)
def test_what_was_asked_for_is_promised(
    asked: tuple[int, int | None],
    status: int,
    content_range: str | None,
    length_bytes: int,
    size_bytes: int,
    wanted: ByteRange,
) -> None:
    found = promised(NAME, asked, status, content_range, length_bytes)
    assert found == (size_bytes, wanted)


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "length_bytes"),
    [
        ((0, None), 200, None, None),
        ((0, None), 200, None, -1),
        ((2, 5), 200, None, 10),
        ((2, 5), 206, None, 3),
        ((2, 5), 206, "bytes 2-4/*", 3),
        ((2, 5), 206, "bytes 2-4/10 ", 3),
        ((2, 5), 206, "bytes ٢-٤/10", 3),
        ((2, 5), 206, "bytes 3-5/10", 3),
        ((2, 5), 206, "bytes 2-3/10", 2),
        ((2, 5), 206, "bytes 2-4/10", 4),
        ((2, 5), 206, "bytes 2-4/4", 3),
        ((2, 5), 206, "bytes 4-2/10", 3),
    ],
)
def test_anything_else_is_refused(
    asked: tuple[int, int | None], status: int, content_range: str | None, length_bytes: int | None
) -> None:
    with pytest.raises(ValueError, match=r"^s3://bucket/key: .*Content-"):
        promised(NAME, asked, status, content_range, length_bytes)


def test_a_range_beyond_the_object_is_an_error_of_its_own() -> None:
    with pytest.raises(RangeError, match="begins at byte 11"):
        promised(NAME, (11, None), 200, None, 10)
