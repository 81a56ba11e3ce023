"""The reading ends of our lanes, of local files and of the ceilings, in the reading process.

Rules: a system is a function of the job that is called once per process (or per client, where the
job says so) and gives an opener, which is called once per thread and gives `read(key, start,
length)`. What can be received into a ready buffer is; the others return what their library makes.
Modules are imported where they are needed, so that a process holds those of its own system only.
The peers follow the same rules in benchmarks/peer_systems.py.

Names ending in `_in_place` do not deliver bytes elsewhere: they show where they lie.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.job import MIB, Job, Opener, Read, into_buffer

if TYPE_CHECKING:
    from benchmarks.sendfile_server import RawSendfile


def opener_of(job: Job) -> Opener:
    """The system's opener: of this file, or a peer's."""
    from benchmarks import peer_systems

    make = globals().get(job.system) or getattr(peer_systems, job.system)
    opener: Opener = make(job)
    return opener


# -- ceilings


def memory_copy(job: Job) -> Opener:
    """A copy within this process, out of memory that no cache of the processor holds."""
    size_bytes = -(-min(256 * MIB, job.object_bytes) // MIB) * MIB
    source = bytearray(os.urandom(MIB)) * (size_bytes // MIB)
    room = ctypes.c_char * size_bytes
    pinned = room.from_buffer(source)

    def opener() -> Read:
        ready = bytearray(job.range_bytes)
        target = (ctypes.c_char * job.range_bytes).from_buffer(ready)

        def read(_: str, start: int, length: int) -> bytearray:
            at = ctypes.addressof(pinned) + start % (size_bytes - length + 1)
            ctypes.memmove(target, at, length)
            return ready

        return read

    return opener


def raw_sendfile(job: Job) -> Opener:
    from benchmarks.sendfile_server import RawSendfile

    return lambda: _raw(job, RawSendfile(job.address("http")))


def raw_checked(job: Job) -> Opener:
    from benchmarks.checking_server import RawChecked

    return lambda: _raw(job, RawChecked(job.address("http")))


def _raw(job: Job, client: RawSendfile) -> Read:
    return into_buffer(job, lambda key, start, view: client.read_into(f"bench/{key}", start, view))


# -- ours


def lane_raw(job: Job) -> Opener:
    """The TCP lane without our client: checksums are received and not checked."""
    from benchmarks.rawlane import RawLane
    from cachesvc.core.types import ObjectName

    def opener() -> Read:
        lane = RawLane(job.address("lane"))
        version = cache(lambda key: lane.stat(ObjectName("bench", key)))
        return into_buffer(job, lambda key, start, view: lane.read_into(version(key), start, view))

    return opener


def _client(job: Job, lane: str) -> Opener:
    from cachesvc_client import CacheClient

    client = CacheClient(job.addresses[lane])

    def read_into(key: str, start: int, view: memoryview) -> None:
        if client.readinto(f"s3://bench/{key}", view, start) != len(view):
            raise RuntimeError(f"a short read of {key}")

    return lambda: into_buffer(job, read_into)


def client_lane(job: Job) -> Opener:
    return _client(job, "lane")


def client_grpc(job: Job) -> Opener:
    return _client(job, "grpc")


def client_unix(job: Job) -> Opener:
    return _client(job, "unix")


def regions(job: Job) -> Mappings:
    from cachesvc_client import CacheClient

    client = CacheClient(job.addresses["unix"])
    return Mappings(lambda key: memoryview(client.map(f"s3://bench/{key}")).cast("B"))


def region(job: Job) -> Opener:
    """A mapped Region, its ranges copied out."""
    of = regions(job)
    return lambda: lambda key, start, length: bytes(of(key)[start : start + length])


def region_again_in_place(job: Job) -> Opener:
    """By a client that has mapped the objects before."""
    return _shown(regions(job))


def region_first_in_place(job: Job) -> Opener:
    """By clients that map for the first time: each object by one of its own."""
    return _shown(first_regions(job))


def first_regions(job: Job) -> Mappings:
    from cachesvc_client import CacheClient

    clients = []

    def map_key(key: str) -> memoryview:
        clients.append(CacheClient(job.addresses["unix"]))
        return memoryview(clients[-1].map(f"s3://bench/{key}")).cast("B")

    return Mappings(map_key)


def _shown(of: Mappings) -> Opener:
    return lambda: lambda key, start, length: of(key)[start : start + length]


class Mappings:
    """Objects in memory by key, each mapped once, by whoever comes first."""

    live: ClassVar[list[Mappings]] = []

    def __init__(self, map_key: Callable[[str], memoryview]) -> None:
        self._map = map_key
        self._views: dict[str, memoryview] = {}
        self._lock = threading.Lock()
        Mappings.live.append(self)

    def __call__(self, key: str) -> memoryview:
        with self._lock:
            if key not in self._views:
                self._views[key] = self._map(key)
            return self._views[key]

    @classmethod
    def forget(cls) -> None:
        """Unmap everything: what is mapped from now on is mapped while the clock runs."""
        for one in cls.live:
            one._views.clear()


def add_up(found: Any) -> None:
    """Read every byte where it lies, 8 at a time."""
    import numpy

    numpy.frombuffer(found, numpy.uint64).sum()


# -- local files


def local_preadv(job: Job) -> Opener:
    file = cache(lambda key: os.open(f"{job.folder}/{key}", os.O_RDONLY))

    def read_into(key: str, start: int, view: memoryview) -> None:
        while view:
            count = os.preadv(file(key), [view], start)
            if not count:
                raise RuntimeError(f"{key} is short")
            view, start = view[count:], start + count

    return lambda: into_buffer(job, read_into)


def mapped(job: Job) -> Mappings:
    def map_key(key: str) -> memoryview:
        with open(f"{job.folder}/{key}", "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    return Mappings(map_key)


def local_mmap(job: Job) -> Opener:
    of = mapped(job)
    return lambda: lambda key, start, length: bytes(of(key)[start : start + length])


def local_mmap_in_place(job: Job) -> Opener:
    return _shown(mapped(job))


def array_in_place(job: Job) -> Opener:
    """An ordinary array that holds the objects: the ceiling of everything that is mapped."""

    def load(key: str) -> memoryview:
        room = bytearray(job.object_bytes)
        with open(f"{job.folder}/{key}", "rb") as file:
            if file.readinto(room) != len(room):
                raise RuntimeError(f"{key} is short")
        return memoryview(room)

    arrays = {key: load(key) for key in job.keys}
    return lambda: lambda key, start, length: arrays[key][start : start + length]
