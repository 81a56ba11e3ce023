"""The reading end of every system, in the reading process: ranges of objects, as its users do it.

Rules: a system is a function of the job that is called once per process (or per client, where the
job says so) and gives an opener, which is called once per thread and gives `read(key, start,
length)`. What can be received into a ready buffer is; the others return what their library makes.
Modules are imported where they are needed, so that a process holds those of its own system only.

Names ending in "in place" do not deliver bytes elsewhere: they add them up where they lie.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import os
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from benchmarks.job import MIB, VALUE_BYTES, Job

Read = Callable[[str, int, int], Any]
Opener = Callable[[], Read]


def into_buffer(job: Job, read_into: Callable[[str, int, memoryview], object]) -> Read:
    """A reader that receives into one ready buffer."""
    ready = memoryview(bytearray(job.range_bytes))

    def read(key: str, start: int, length: int) -> memoryview:
        view = ready[:length]
        read_into(key, start, view)
        return view

    return read


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

    def opener() -> Read:
        raw = RawSendfile(job.address("http"))
        return into_buffer(job, lambda key, start, view: raw.read_into(f"bench/{key}", start, view))

    return opener


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


def regions(job: Job) -> Callable[[str], memoryview]:
    from cachesvc_client import CacheClient

    client = cast(Any, CacheClient(job.addresses["unix"]))
    return cache(lambda key: memoryview(client.map(f"s3://bench/{key}")).cast("B"))


def region(job: Job) -> Opener:
    """A mapped Region, its ranges copied out."""
    of = regions(job)
    return lambda: lambda key, start, length: bytes(of(key)[start : start + length])


def region_in_place(job: Job) -> Opener:
    of = regions(job)
    return lambda: lambda key, start, length: add_up(of(key)[start : start + length])


def add_up(view: memoryview) -> memoryview:
    """Read every byte where it lies."""
    import numpy

    numpy.frombuffer(view, numpy.uint64).sum()
    return view


# -- peers


def http_raw(job: Job) -> Opener:
    """HTTP ranges, received into a ready buffer: nginx, varnish, or the origin itself."""
    from benchmarks.rawlane import RawHttp

    def opener() -> Read:
        http = RawHttp(job.address("http"))
        return into_buffer(
            job, lambda key, start, view: http.read_into(f"/bench/{key}", start, view)
        )

    return opener


def redis_get(job: Job) -> Opener:
    import redis

    host, port = job.address("http")
    client = redis.Redis(host, port)

    def read(key: str, start: int, length: int) -> Any:
        number, at = divmod(start, VALUE_BYTES)
        if not at and length == VALUE_BYTES:
            return client.get(f"{key}:{number}")
        return client.getrange(f"{key}:{number}", at, at + length - 1)

    return lambda: read


def boto3_get(job: Job) -> Opener:
    import boto3
    from botocore.config import Config

    config = Config(
        max_pool_connections=64,
        s3={"addressing_style": "path"},
        response_checksum_validation="when_required",
    )
    client = boto3.client("s3", endpoint_url=job.url, config=config)

    def read(key: str, start: int, length: int) -> Any:
        wanted = f"bytes={start}-{start + length - 1}"
        return client.get_object(Bucket="bench", Key=key, Range=wanted)["Body"].read()

    return lambda: read


def boto3_download(job: Job) -> Opener:
    """Whole objects, in parallel parts by boto3's transfer manager, with 16 threads."""
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    config = Config(max_pool_connections=64, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=job.url, config=config)
    transfer = TransferConfig(max_concurrency=16)

    def read(key: str, *_: int) -> Any:
        target = io.BytesIO()
        client.download_fileobj("bench", key, target, Config=transfer)
        return target.getbuffer()

    return lambda: read


def s3_filesystem(job: Job) -> Any:
    import s3fs

    return s3fs.S3FileSystem(client_kwargs={"endpoint_url": job.url}, skip_instance_cache=True)


def s3fs_get(job: Job) -> Opener:
    fs = s3_filesystem(job)
    return lambda: (
        lambda key, start, length: fs.cat_file(f"bench/{key}", start=start, end=start + length)
    )


def _files(open_key: Callable[[str], Any]) -> Opener:
    def opener() -> Read:
        file = cache(open_key)

        def read(key: str, start: int, length: int) -> Any:
            file(key).seek(start)
            return file(key).read(length)

        return read

    return opener


def s3fs_blockcache(job: Job) -> Opener:
    fs = s3_filesystem(job)
    options = {"cache_type": "blockcache", "block_size": VALUE_BYTES}
    return _files(lambda key: fs.open(f"bench/{key}", **options))


def fsspec_filecache(job: Job) -> Opener:
    """Whole objects are copied to a local folder once, then read there."""
    import fsspec

    fs = fsspec.filesystem(
        "filecache",
        target_protocol="s3",
        target_options={"client_kwargs": {"endpoint_url": job.url}},
        cache_storage=job.scratch,
    )
    return _files(lambda key: fs.open(f"bench/{key}", "rb"))


def obstore_get(job: Job) -> Opener:
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        "bench",
        endpoint=job.url,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    return lambda: (
        lambda key, start, length: obstore.get_range(store, key, start=start, length=length)
    )


def arrow_filesystem(job: Job) -> Any:
    from pyarrow import fs

    return fs.S3FileSystem(endpoint_override=job.addresses["http"], scheme="http")


def pyarrow_get(job: Job) -> Opener:
    s3 = arrow_filesystem(job)
    file = cache(lambda key: s3.open_input_file(f"bench/{key}"))
    return lambda: lambda key, start, length: file(key).read_at(length, start)


def local_preadv(job: Job) -> Opener:
    file = cache(lambda key: os.open(f"{job.folder}/{key}", os.O_RDONLY))

    def read_into(key: str, start: int, view: memoryview) -> None:
        while view:
            count = os.preadv(file(key), [view], start)
            if not count:
                raise RuntimeError(f"{key} is short")
            view, start = view[count:], start + count

    return lambda: into_buffer(job, read_into)


def mapped(job: Job) -> Callable[[str], memoryview]:
    def map_key(key: str) -> memoryview:
        with open(f"{job.folder}/{key}", "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    return cache(map_key)


def local_mmap(job: Job) -> Opener:
    of = mapped(job)
    return lambda: lambda key, start, length: bytes(of(key)[start : start + length])


def local_mmap_in_place(job: Job) -> Opener:
    of = mapped(job)
    return lambda: lambda key, start, length: add_up(of(key)[start : start + length])


def array_in_place(job: Job) -> Opener:
    """An ordinary array that holds the objects: the ceiling of everything that is mapped."""

    def load(key: str) -> memoryview:
        room = bytearray(job.object_bytes)
        with open(f"{job.folder}/{key}", "rb") as file:
            if file.readinto(room) != len(room):
                raise RuntimeError(f"{key} is short")
        return memoryview(room)

    arrays = {key: load(key) for key in job.keys}
    return lambda: lambda key, start, length: add_up(arrays[key][start : start + length])
