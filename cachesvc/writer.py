"""The writer: pages of blocks into block files.

Story: the first pages of a block make a new file (`_begin`), on the first of two devices that has
room; more pages go to the file that the block has (`_append`).

Rules
- Writers of one block follow one another. Room is reserved before a byte is written.
- Data first, then the trailer that vouches for it, then the index. A page that is present is never
  written again. No fsync: after a power cut the checksums decide.
"""

from __future__ import annotations

from contextlib import suppress

from xxhash import xxh3_64_intdigest

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import TRAILER_BYTES, Trailer, trailer_offset
from cachesvc.device import Device
from cachesvc.disk.base import BlockFile
from cachesvc.opener import Opener
from cachesvc.pins import OpenBlock
from cachesvc.stock import Stock


class Writer:
    """Writes the blocks of a stock. Thread-safe."""

    def __init__(self, stock: Stock, opener: Opener) -> None:
        self._stock = stock
        self._opener = opener

    def write(self, block: BlockRef, first_page: int, data: memoryview, checksums: bytes) -> bool:
        """Store adjacent whole pages (see Store.write); whether they are stored."""
        assert first_page * block.geometry.page_bytes + len(data) <= block.length_bytes
        with self._stock.stripe(block.id):
            stored = self._write(block, first_page, data, checksums)
        if not stored:
            self._stock.metrics.unstored_bytes.inc(len(data))
        return stored

    def _write(self, block: BlockRef, first_page: int, data: memoryview, checksums: bytes) -> bool:
        pin = self._opener.pin(block.id, hit=False)
        if pin is not None:
            try:
                return self._append(pin.held, block, first_page, data, checksums)
            finally:
                pin.close()
        with self._stock.lock:
            if self._stock.home(block.id) is not None:
                return False  # it is here, but could not be opened just now
        for device in self._choices(block.id):
            if self._begin(device, block, first_page, data, checksums):
                return True
        return False

    def _choices(self, block_id: bytes) -> list[Device]:
        """Devices for a new block: rendezvous order, so that each gets its share and a failed one
        moves no other.
        """
        return sorted(
            (device for device in self._stock.devices if not device.failure),
            key=lambda device: xxh3_64_intdigest(block_id + device.disk.name.encode()),
        )[:2]

    def _begin(
        self, device: Device, block: BlockRef, first_page: int, data: memoryview, checksums: bytes
    ) -> bool:
        """The first pages of a block: a new file."""
        stock, need_bytes = self._stock, len(data) + 2 * TRAILER_BYTES
        if not stock.reserve(device, block.id, need_bytes):
            return False
        file = None
        try:
            file = self._create(device, block.id)
            trailer = Trailer(block)
            trailer.add(first_page, checksums)
            taken_bytes = self._put(file, trailer, first_page, data)
        except OSError as error:
            if file is not None:
                file.close()
                stock.unlink(device, [block.id])
            stock.release(device, need_bytes)
            stock.write_error(device, error)
            return False
        with stock.lock:
            device.reserved_bytes -= need_bytes
            pin = None if device.failure else stock.share(device, file, trailer, taken_bytes)
        if pin is None:
            file.close()
            return False
        pin.close()
        return True

    def _append(
        self,
        opened: OpenBlock,
        block: BlockRef,
        first_page: int,
        data: memoryview,
        checksums: bytes,
    ) -> bool:
        """More pages of a block that has a file."""
        stock, device, need_bytes = self._stock, opened.device, len(data) + TRAILER_BYTES
        if device.failure or not stock.reserve(device, block.id, need_bytes):
            return False
        trailer = Trailer(block, opened.trailer.present, opened.trailer.checksums(0, 128))
        added = trailer.add(first_page, checksums)
        try:
            taken_bytes = opened.taken_bytes
            if added:
                taken_bytes = self._put(opened.file, trailer, first_page, data, added)
        except OSError as error:
            with suppress(OSError):
                taken_bytes = opened.file.taken_bytes()
            stock.settle(opened, need_bytes, taken_bytes)
            stock.write_error(device, error)
            return False
        with stock.lock:
            opened.trailer = trailer
        return stock.settle(opened, need_bytes, taken_bytes)

    def _put(
        self,
        file: BlockFile,
        trailer: Trailer,
        first_page: int,
        data: memoryview,
        added: int = -1,
    ) -> int:
        """Data, then the trailer that vouches for it; the space that the file takes then.

        Pages that are present already are not touched.
        """
        block = trailer.block
        page_bytes = block.geometry.page_bytes
        whole = ((1 << -(-len(data) // page_bytes)) - 1) << first_page
        if added & whole == whole:
            file.pwrite(data, first_page * page_bytes)
        else:
            for page in range(first_page, block.page_count):
                if added >> page & 1:
                    offset = (page - first_page) * page_bytes
                    file.pwrite(data[offset : offset + page_bytes], page * page_bytes)
        file.pwrite(trailer.encode(), trailer_offset(block))
        return file.taken_bytes()

    def _create(self, device: Device, block_id: bytes) -> BlockFile:
        try:
            return device.disk.create(block_id)
        except FileExistsError:
            device.disk.unlink(block_id)
            return device.disk.create(block_id)
