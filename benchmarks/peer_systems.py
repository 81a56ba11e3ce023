"""The reading ends of the peers, each as its users read; rules as in benchmarks/systems.py."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

from benchmarks.job import VALUE_BYTES, Job, Opener, Read, into_buffer


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
    """Whole objects are copied to a local folder before the clock runs, then read there."""
    import fsspec

    fs = fsspec.filesystem(
        "filecache",
        target_protocol="s3",
        target_options={"client_kwargs": {"endpoint_url": job.url}},
        cache_storage=job.scratch,
    )
    for key in job.keys:
        fs.open(f"bench/{key}", "rb").close()
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
