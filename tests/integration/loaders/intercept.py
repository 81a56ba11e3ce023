"""Loaders that know nothing of a cache: they name S3 itself, and `install` was called before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.integration.loaders import contents, gateway
from tests.integration.loaders.loader import Loader, Read, Where


class Intercepted:
    """A loader of S3 under interception. Pickled, as all loaders are."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def __call__(self, where: Where, folder: str) -> Any:
        """What it reads. Raises AssertionError if nothing of it came by interception."""
        from cachesvc_client import intercepted

        with _installed(where):
            before = intercepted()
            found = self._read(replace(where, s3=where.options["origin"]["endpoint_url"]), folder)
            now = intercepted()
        assert (now.answered > before.answered, now.faults) == (True, before.faults), now
        return found


@contextmanager
def _installed(where: Where) -> Iterator[None]:
    import cachesvc_client

    cachesvc_client.install(**where.options)
    try:
        yield
    finally:
        cachesvc_client.uninstall()


LOADERS = [
    Loader(name, contents.big, Intercepted(read), needs, direct=read)
    for name, read, needs in (
        ("boto3", gateway.boto3, ("boto3",)),
        ("s3transfer", gateway.s3transfer, ("boto3", "s3transfer")),
        ("aiobotocore", gateway.aiobotocore, ("aiobotocore",)),
        ("s3fs", gateway.s3fs, ("s3fs",)),
    )
]
