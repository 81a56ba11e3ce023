"""One version of an object, as a client reads it: every call answers from that version or not at
all.

Story: `CacheClient.pin` asks for the current version and makes one. Whatever reads an object in
several steps, as files do and formats with a header, holds to it from the first step to the last.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cachesvc.core.types import ObjectVersion
from cachesvc_client.addresses import PAGE_BYTES
from cachesvc_client.file import CacheFile
from cachesvc_client.region import Canvas, EmptyRegion, Region
from cachesvc_client.target import GAP_BYTES, Range, Span, joined

if TYPE_CHECKING:
    from cachesvc_client.client import CacheClient


class PinnedObject:
    """A version of an object. All reads raise ObjectChanged once its bytes are gone, and else what
    those of CacheClient raise. Of the client that made it; threads may share it.
    """

    def __init__(self, client: CacheClient, version: ObjectVersion) -> None:
        self.version = version
        self._client = client

    @property
    def size_bytes(self) -> int:
        return self.version.size_bytes

    def read(self, start: int, end: int, tally: Counter[str] | None = None) -> bytes:
        """Bytes `[start, end)`, cut to the object. tally: is added to, by where they came from, as
        CacheClient.sources has it; DIRECT is there too if S3 told the version alone.
        """
        return self._client._read(self.version.name, self.version, [(start, end)], tally)[0]

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Several ranges, in the order given; they may overlap."""
        return self._client._read(self.version.name, self.version, ranges)

    def readinto(self, start: int, view: memoryview) -> int:
        """Fill a writable view of bytes from `start` on; returns how many there were."""
        return self._client._readinto(self.version.name, self.version, start, view)

    def file(self, buffer_bytes: int | None = None) -> io.BufferedReader:
        """As a seekable binary file with a read buffer (default: ClientConfig's)."""
        raw = CacheFile(self.version, self.readinto, self.read)
        return io.BufferedReader(raw, buffer_bytes or self._client.config.file_buffer_bytes)

    def map(
        self, ranges: Sequence[Span], told: Callable[[int], None] | None = None
    ) -> Region | EmptyRegion:
        """A Region that spans the ranges, each within the object; see CacheClient.map.

        It begins at `region.start`, at or somewhat before the first range, so that blocks can be
        mapped in place. Only what the ranges name is sure to be there: what lies between them reads
        as zeros, or is there too. told: called with numbers of bytes as they come, by any thread;
        what has to be fetched again counts again.
        """
        spans = _widened(ranges, self.size_bytes)
        first, beyond = (spans[0][0], spans[-1][1]) if spans else (0, 0)
        canvas = _Watched(self.version.name, first, beyond, self._client.block_bytes)
        canvas.told = told
        canvas.check(self.version)
        wanted: list[Range] = [*spans]
        try:
            self._client._run(
                lambda script: script.read(self.version.name, wanted, canvas, self.version)
            )
            return canvas.finish()
        finally:
            canvas.discard()


class _Watched(Canvas):
    """A canvas that tells of the bytes that are laid on it, or about to be received."""

    told: Callable[[int], None] | None = None

    def view(self, start: int, length_bytes: int) -> memoryview:
        if self.told is not None:
            self.told(length_bytes)
        return super().view(start, length_bytes)

    def lay(self, file: int, offset: int, start: int, length_bytes: int, /) -> Any:
        laid = super().lay(file, offset, start, length_bytes)
        if laid is not None and self.told is not None:
            self.told(length_bytes)
        return laid


def _widened(ranges: Sequence[Span], size_bytes: int) -> list[Span]:
    """The ranges that are not empty, in order, on pages of the system, joined where near."""
    widened = [
        (start // PAGE_BYTES * PAGE_BYTES, min(-(-end // PAGE_BYTES) * PAGE_BYTES, size_bytes))
        for start, end in ranges
        if start < end
    ]
    return joined(widened, GAP_BYTES)
