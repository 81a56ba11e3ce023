"""Memory disks that hold the store to its contract, write by write, and that can be damaged.

Rules
- A page that the trailer in the file vouches for is never written again, and never disowned.
- A trailer that is written vouches only for bytes that are in the file already.
- A file that the simulator damaged itself (`damaged`) is no longer held to that.

Story: a crash leaves `files` and takes everything else: the node that comes back gets a new SimDisk
over the same files, and the old one, which the dead still hold, answers nothing any more (`dead`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from cachesvc.core.blocks import pages_of
from cachesvc.core.format import TRAILER_BYTES, FormatError, Trailer, checksum, decode
from cachesvc.disk.memory import MemoryDisk, MemoryFile

Violate = Callable[[str], None]
Trouble = Callable[[str], OSError | None]
Tear = Callable[[int], tuple[int, OSError] | None]


class Blob(bytearray):
    """The bytes of a block file, as the disk remembers them."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(data)
        self.damaged = False
        self.trailer: Trailer | None = None


class SimFile(MemoryFile):
    """An open block file whose writes are watched."""

    def __init__(self, disk: SimDisk, data: Blob) -> None:
        super().__init__(disk, data)
        self._sim = disk
        self.blob = data

    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        torn = self._sim.tear(len(data))
        if torn is not None:
            self.blob.damaged = True
            super().pwrite(data[: torn[0]], offset)
            raise torn[1]
        is_trailer = len(data) == TRAILER_BYTES
        if not is_trailer and not self.blob.damaged:
            self._check_data(offset, len(data))
        super().pwrite(data, offset)
        if is_trailer:
            self._check_trailer(bytes(data))

    def _check_data(self, offset: int, length_bytes: int) -> None:
        old = self.blob.trailer
        if old is None:
            return
        page_bytes = old.block.geometry.page_bytes
        if old.present & pages_of(offset, offset + length_bytes, page_bytes):
            self._sim.violate(f"{old.block}: a present page is written again at byte {offset}")

    def _check_trailer(self, raw: bytes) -> None:
        try:
            new = decode(raw)
        except FormatError as error:
            self._sim.violate(f"a trailer was written that is none: {error}")
            return
        old, self.blob.trailer = self.blob.trailer, new
        if self.blob.damaged:
            return
        for page in range(new.block.page_count):
            vouched = new.checksums(page, page + 1)
            if new.present >> page & 1 and checksum(page_of(self.blob, new, page)) != vouched:
                self._sim.violate(f"{new.block}: page {page} is vouched for before it is there")
            if old is not None and old.present >> page & 1 and not new.present >> page & 1:
                self._sim.violate(f"{new.block}: page {page} is disowned")


class SimDisk(MemoryDisk):
    """A MemoryDisk of watched files. trouble: the error of an operation, if it shall have one."""

    def __init__(self, name: str, files: dict[bytes, bytearray], violate: Violate) -> None:
        super().__init__(name)
        self.files = files
        self.violate = violate
        self.trouble: Trouble = lambda _op: None
        self.tear: Tear = lambda _length: None
        self.dead = False
        self.fail = self._fail

    def open(self, block_id: bytes) -> SimFile:
        self.fail("open")
        if block_id not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such block", block_id.hex())
        return SimFile(self, self._blob(block_id))

    def create(self, block_id: bytes) -> SimFile:
        self.fail("create")
        if block_id in self.files:
            raise FileExistsError(errno.EEXIST, "block exists", block_id.hex())
        self.files[block_id] = Blob()
        return SimFile(self, self._blob(block_id))

    def blobs(self) -> list[tuple[bytes, Blob]]:
        """All files, oldest first."""
        return [(block_id, self._blob(block_id)) for block_id in self.files]

    def _blob(self, block_id: bytes) -> Blob:
        blob = self.files[block_id]
        assert isinstance(blob, Blob)
        return blob

    def _fail(self, op: str) -> None:
        if self.dead:
            raise OSError(errno.EIO, "the process that had this disk is dead")
        error = self.trouble(op)
        try:
            if error is not None:
                raise error
        finally:
            del error  # a frame that its own traceback holds would keep what its callers hold


def page_of(blob: bytes | bytearray, trailer: Trailer, page: int) -> bytes:
    """The bytes that a file has where a page belongs."""
    start = page * trailer.block.geometry.page_bytes
    return bytes(blob[start : start + trailer.block.page_length_bytes(page)])


def proven_pages(blob: bytes | bytearray) -> tuple[Trailer, list[tuple[int, bytes]]] | None:
    """The trailer of a file and its pages that match their checksums; None without a trailer."""
    try:
        trailer = decode(bytes(blob[-TRAILER_BYTES:]))
    except FormatError:
        return None
    pages = []
    for page in range(trailer.block.page_count):
        data = page_of(blob, trailer, page)
        if trailer.present >> page & 1 and checksum(data) == trailer.checksums(page, page + 1):
            pages.append((page, data))
    return trailer, pages
