"""An object in memory as one buffer, without a copy where a node of this host has its blocks.

Story: `CacheClient.map` makes a Canvas, the target of a read of the whole range. When the version
is known, the canvas reserves the addresses (a Region). Files that the node on this host passes are
laid over them; what comes over the network, or from S3, is received into room that is opened up for
it. At the end all is sealed, and the Region handed out.

Rules
- Every page is checked before anybody sees it, unless this client has checked it before and its
  file is unchanged (verified.py), and brought into memory before that: so a disk that fails is an
  error of the read, which asks again, and no signal.
- Only whole pages of the system can be laid: of a range that begins within one, everything is
  received.
- What is laid stays: eviction unlinks the file, a node that dies leaves it, and its bytes remain.
- The memory lives as long as the Region or a view of it does, in this process and in forked ones.
"""

from __future__ import annotations

import errno
import mmap
from typing import NoReturn, Self

from cachesvc.core.errors import ProtocolError
from cachesvc.core.memory import address_of
from cachesvc.core.types import ObjectName, ObjectVersion
from cachesvc_client import addresses, limits
from cachesvc_client.addresses import HUGE_BYTES, MAP_NORESERVE, PAGE_BYTES
from cachesvc_client.effects import Laid
from cachesvc_client.limits import RegionRefused

_OLD_KERNEL = {errno.EINVAL, errno.ENOSYS}


class Region(mmap.mmap):
    """A range of an object as a read-only buffer: bytes, slices, memoryview, numpy and torch.

    A context manager. Of one version, whatever becomes of object, nodes and files. Indexed by bytes
    from the range's start; `len` says how many there are. `find`, `read`, `seek` as of mmap.mmap.

    `close` gives the memory back, once, from whichever thread; it raises BufferError as long as a
    view (a memoryview, an array) lives: let that go first, or leave the Region to the collector.
    torch.frombuffer keeps no view of what it is given: give it memoryview(region).

    Not pickled: send the URI, and map it there.
    """

    version: ObjectVersion
    start: int

    def __new__(cls, version: ObjectVersion, start: int, length_bytes: int) -> Self:
        """Made by CacheClient.map: addresses, with nothing there yet."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        region = super().__new__(cls, -1, length_bytes, flags=flags, prot=mmap.PROT_READ)
        region.version = version
        region.start = start
        return region

    def prefetch(self, start: int = 0, end: int | None = None) -> None:
        """Have the kernel bring bytes `[start, end)` of the Region back into memory, if it has let
        go of them; does not wait for it.
        """
        first, beyond, _ = slice(start, end).indices(len(self))
        if first < beyond:
            first -= first % PAGE_BYTES
            self.madvise(mmap.MADV_WILLNEED, first, beyond - first)

    def __repr__(self) -> str:
        return _described(self.version, self.start, "closed" if self.closed else len(self))

    def __reduce__(self) -> NoReturn:
        raise _unpicklable(self.version)


class EmptyRegion(bytes):
    """A Region of no bytes, which the system cannot map."""

    version: ObjectVersion
    start: int
    closed = False

    def __new__(cls, version: ObjectVersion, start: int) -> Self:
        """Made by CacheClient.map."""
        region = super().__new__(cls)
        region.version = version
        region.start = start
        return region

    def prefetch(self, start: int = 0, end: int | None = None) -> None:
        """There is nothing to bring."""

    def close(self) -> None:
        """There is nothing to give back."""
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return _described(self.version, self.start, 0)

    def __reduce__(self) -> NoReturn:
        raise _unpicklable(self.version)


class Canvas:
    """The target of a read that becomes a Region: bytes `[start, end)`, end None for the object's.

    block_bytes: in what pieces the range may come.
    """

    def __init__(self, name: ObjectName, start: int, end: int | None, block_bytes: int) -> None:
        self._name = name
        self._start = start
        self._end = end
        self._block_bytes = block_bytes
        self._version: ObjectVersion | None = None
        self._region: Region | None = None
        self._address = 0
        self._length_bytes = 0

    @property
    def in_place(self) -> bool:
        return self._start % PAGE_BYTES == 0

    def begin(self, version: ObjectVersion) -> None:
        """Reserve the addresses. Raises RegionRefused if there is no room for them."""
        if self._version is not None and self._version.same_bytes(version):
            return
        self.discard()
        length_bytes = self.check(version)
        if length_bytes:
            try:
                self._region = _reserved(version, self._start, length_bytes)
            except (OSError, OverflowError) as error:
                raise RegionRefused(
                    f"{self._name}: no room for a Region of {length_bytes} bytes ({error}): raise"
                    " the limit of the address space (ulimit -v), or map a part"
                ) from error
            self._address = address_of(self._region)
        self._length_bytes = length_bytes
        self._version = version

    def check(self, version: ObjectVersion) -> int:
        """How many bytes there will be. Raises RegionRefused if this process cannot map them."""
        end = version.size_bytes if self._end is None else min(self._end, version.size_bytes)
        length_bytes = max(0, end - self._start)
        if length_bytes:
            blocks = (end - 1) // self._block_bytes - self._start // self._block_bytes + 1
            limits.check(self._name, length_bytes, blocks + 1)
        return length_bytes

    def view(self, start: int, length_bytes: int) -> memoryview:
        """Room to receive bytes `[start, start + length_bytes)` of the object."""
        address = self._place(start, length_bytes)
        if length_bytes == 0:
            return memoryview(bytearray())
        end = address + length_bytes
        if end == self._address + self._length_bytes:  # nobody else has bytes in this page
            end = -(-end // PAGE_BYTES) * PAGE_BYTES
        try:
            addresses.open_up(address, end - address)
        except OSError as error:
            raise self._refused(error) from error
        return addresses.writable(address, length_bytes)

    def settled(self, *_where: int) -> None:
        return None

    def lay(self, file: int, offset: int, start: int, length_bytes: int, /) -> Laid | None:
        address = self._place(start, length_bytes)
        last = start + length_bytes == self._start + self._length_bytes
        if (address | offset) % PAGE_BYTES or (length_bytes % PAGE_BYTES and not last):
            return None
        try:
            addresses.lay(address, length_bytes, file, offset)
            was_read = addresses.bring_in(address, length_bytes)
        except OSError as error:
            if error.errno in _OLD_KERNEL:
                return None
            if error.errno == errno.ENOMEM:
                raise self._refused(error) from error
            raise
        return Laid(addresses.writable(address, length_bytes).toreadonly(), was_read)

    def finish(self) -> Region | EmptyRegion:
        """The Region, once the read is over."""
        version, region = self._version, self._region
        assert version is not None, "nothing was read"
        if region is None:
            return EmptyRegion(version, self._start)
        addresses.seal(self._address, self._length_bytes)
        self._region = None
        return region

    def discard(self) -> None:
        """The read failed, or begins again: give the memory back."""
        region, self._region, self._version = self._region, None, None
        if region is not None:
            region.close()

    def _place(self, start: int, length_bytes: int) -> int:
        offset = start - self._start
        if offset < 0 or offset + length_bytes > self._length_bytes:
            raise ProtocolError(f"bytes [{start}, {start + length_bytes}) were not asked for")
        return self._address + offset

    def _refused(self, error: OSError) -> RegionRefused:
        return RegionRefused(
            f"{self._name}: no more room to map ({error.strerror}): raise vm.max_map_count"
            " (sysctl), or map a part: map(uri, start, end)"
        )


def _reserved(version: ObjectVersion, start: int, length_bytes: int) -> Region:
    """A Region where huge pages of block files can be shown as such: as far from a border of theirs
    as `start` is. A kernel puts new mappings under those that are there, so the end of a first try
    is occupied by so much that a second one slides to the right place. If it does not (new kernels
    insist on a place for lengths of whole huge pages), mapping is slower, and nothing else.
    """
    region = Region(version, start, length_bytes)
    address = address_of(region)
    excess_bytes = (address - start) % HUGE_BYTES
    if length_bytes < HUGE_BYTES or excess_bytes % PAGE_BYTES or not excess_bytes:
        return region
    end = address + -(-length_bytes // PAGE_BYTES) * PAGE_BYTES
    region.close()
    with addresses.occupied(end - excess_bytes, excess_bytes):
        return Region(version, start, length_bytes)


def _described(version: ObjectVersion, start: int, size: int | str) -> str:
    return f"<Region of {version.name} {version.etag} from byte {start}: {size}>"


def _unpicklable(version: ObjectVersion) -> TypeError:
    return TypeError(
        f"a Region is memory of this process and cannot be pickled: send {str(version.name)!r}"
        " and map it there, which costs no copy"
    )
