"""What the tests of the reader read: an object of several blocks, and the ways to ask for it."""

from __future__ import annotations

from cachesvc.core.request import ReadRequest
from cachesvc.core.types import Geometry, ObjectVersion
from cachesvc.small import SmallReads
from tests.support import GEOMETRY, NAME, Rig, pattern, received

DATA = pattern(5 * GEOMETRY.block_bytes + 200)
END = len(DATA)

BIG = Geometry(
    block_bytes=512 << 10, page_bytes=16 << 10, extent_min_bytes=64 << 10, extent_max_bytes=1 << 20
)


RANGES: list[tuple[int, int | None]] = [
    (0, None),
    (0, 0),
    (0, 1),
    (0, 128),
    (0, 1024),
    (1, 129),
    (127, 129),
    (1000, 1050),
    (1024, 2048),
    (1023, 2049),
    (300, 4000),
    (END - 1, END),
    (END - 1, None),
    (END - 201, None),
    (END - 200, END),
    (END, None),
    (END, END),
    (END, END + 100),
    (END - 5, END + 100),
    (500, 500),
    (0, 1 << 60),
]


def expected(start: int, end: int | None) -> bytes:
    return DATA[start : END if end is None else end]


async def fill(rig: Rig) -> ObjectVersion:
    """Put the object and read it all."""
    version = rig.origin.put(NAME, DATA)
    assert await rig.read() == DATA
    return version


async def hit(rig: Rig, request: ReadRequest) -> bytes | None:
    answer = rig.reader.hit(request)
    if answer is None:
        return None
    page_bytes = rig.reader.geometry.page_bytes
    return b"".join(data for _, data in await received(answer, page_bytes))


def answered(small: SmallReads, request: bytes, epoch: int) -> bytes | None:
    """The frame of a small answer, as a lane sends it, and tells of it when all is quiet."""
    frame = small.answer(request, epoch)
    if frame is not None:
        small.sent()
        small.settle()
    return frame
