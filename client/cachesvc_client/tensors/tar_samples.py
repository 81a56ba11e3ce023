"""The samples of a tar shard in the layout of webdataset: files that share the name up to the first
dot of their last part are one sample, the rest of the name says what of it they are.

Rules: a shard is read from its first byte to its last, once, in order; files whose name has no dot,
and those that webdataset keeps for itself (`__name__`), belong to no sample.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

from cachesvc.core.errors import CacheError, Retry

Sample = dict[str, str | bytes]

_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # both as webdataset has them
_OF_WEBDATASET = re.compile(r"__[^/]*__($|/)")
_READ_BYTES = 1 << 20


class CorruptShard(CacheError, ValueError):
    """The object is no tar archive, or not a whole one, or no sample can be made of it."""

    retry = Retry.NEVER


def samples(uri: str, file: IO[bytes]) -> Iterator[Sample]:
    """One dict a sample: `__key__`, `__url__`, and the bytes of each file by its extension.

    Raises: CorruptShard; what reading the file raises.
    """
    sample: Sample = {}
    for name, data in _files(uri, file):
        found = _NAME.fullmatch(name)
        if not found or _OF_WEBDATASET.match(name):
            continue
        key, extension = found[1], found[2].lower()
        if sample and sample["__key__"] != key:
            yield sample
            sample = {}
        if extension in sample:
            raise CorruptShard(f"{uri}: sample {key!r} has two files .{extension}")
        sample = sample or {"__key__": key, "__url__": uri}
        sample[extension] = data
    if sample:
        yield sample


def _files(uri: str, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    try:
        with (
            _unpacked(uri, file) as plain,
            tarfile.open(fileobj=plain, mode="r|", bufsize=_READ_BYTES) as archive,
        ):
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, content.read()
                archive.members = []  # type: ignore[attr-defined]  # it would keep every one
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise CorruptShard(f"{uri}: no whole tar archive: {error}") from error


def _unpacked(uri: str, file: IO[bytes]) -> AbstractContextManager[Any]:
    """By modules that notice where compressed data was cut; tarfile's own streams do not."""
    if uri.endswith((".gz", ".tgz")):
        return gzip.open(file)
    if uri.endswith(".bz2"):
        return bz2.open(file)
    return lzma.open(file) if uri.endswith(".xz") else nullcontext(file)
