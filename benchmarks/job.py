"""What a reading process is told, and how objects look; knows nothing of either end."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MIB = 1 << 20
IN_PLACE = "_in_place"  # how readers end that deliver nothing elsewhere
VALUE_BYTES = 8 * MIB  # of one value in redis, one slice of nginx
PAGE_BYTES = 4096
PAGE = struct.Struct("<II")  # how every page of an object begins: the object's number, the page's


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class Job:
    """One reading process: what, of which system, from where. Travels as JSON.

    work: the kind of work (benchmarks/reader.py). keys: of the objects, in bucket `bench`.
    object_bytes: the size of each. range_bytes, at_once: of a range; how many threads. zipf: 0
    reads the ranges in order, else ranges are drawn with this exponent. limit_s: begin no range
    after that, once every thread has read one. cold: read nothing before the clock runs.
    each: every thread reads all of it, with a client of its own. folder: the files of the bucket.
    scratch: for local copies. add_up: every range, where it was delivered, while the clock runs;
    None: by those only that read in place. tagged: pages begin with what they are (see PAGE).
    extra: what one kind of work needs.
    """

    work: str
    system: str
    keys: list[str]
    object_bytes: int
    addresses: dict[str, str] = field(default_factory=dict)
    range_bytes: int = 8 * MIB
    at_once: int = 1
    zipf: float = 0.0
    limit_s: float = 60.0
    seed: int = 0
    cold: bool = False
    each: bool = False
    folder: str = ""
    scratch: str = ""
    add_up: bool | None = None
    tagged: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    def address(self, lane: str) -> tuple[str, int]:
        return split(self.addresses[lane])

    @property
    def url(self) -> str:
        return f"http://{self.addresses['http']}"


Read = Callable[[str, int, int], Any]
Opener = Callable[[], Read]


def ready_buffer(size_bytes: int, behind_page: int = 16) -> memoryview:
    """A buffer that begins so many bytes behind a page of the system: 16 as large bytearrays and
    numpy's arrays do (docs/decisions/0023-slow-places-of-memory.md). It has all of its pages.
    """
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    room = memoryview(mmap.mmap(-1, size_bytes + mmap.PAGESIZE, flags=private))
    touched = room[:: mmap.PAGESIZE]
    touched[:] = bytes(len(touched))
    return room[behind_page : behind_page + size_bytes]


def into_buffer(job: Job, read_into: Callable[[str, int, memoryview], object]) -> Read:
    """A reader that receives into one ready buffer."""
    ready = ready_buffer(job.range_bytes)

    def read(key: str, start: int, length: int) -> memoryview:
        view = ready[:length]
        read_into(key, start, view)
        return view

    return read
