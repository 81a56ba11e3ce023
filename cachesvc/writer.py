"""The writer: pages of blocks into block files.

Story: the first pages of a block make a new file (`_begin`), on the first of two devices that has
room; more pages go to the file that the block has (`_append`).

Rules
- Writers of one block follow one another. Room is reserved before a byte is written, and whatever
  ends the write, what was reserved and not taken is given back.
- Data first, then the trailer that vouches for it, then the index. A page that is present is never
  written again. No fsync: after a power cut the checksums decide.
"""

from __future__ import annotations

from contextlib import suppress

from xxhash import xxh3_64_intdigest

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import TRAILER_BYTES, Trailer, trailer_offset
from cachesvc.core.types import PAGES_PER_BLOCK
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
        with self._stock.making(block.id) as fresh:
            # If not, it is here, but could not be opened just now.
            return fresh and any(
                self._begin(device, block, first_page, data, checksums)
                for device in self._choices(block.id)
            )

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
        file = pin = None
        try:
            file = self._create(device, block.id)
            trailer = Trailer(block)
            trailer.add(first_page, checksums)
            taken_bytes = self._put(file, trailer, first_page, data)
            pin, need_bytes = stock.take_in(device, file, trailer, taken_bytes, need_bytes), 0
        except OSError as error:
            stock.write_error(device, error, need_bytes)
        finally:
            if file is not None and pin is None:
                stock.remove(device, [block.id], [file])
            stock.release(device, need_bytes)
        if pin is not None:
            pin.close()
        return pin is not None

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
        taken_bytes, stored = opened.taken_bytes, False
        try:
            trailer = Trailer(
                block, opened.trailer.present, opened.trailer.checksums(0, PAGES_PER_BLOCK)
            )
            added = trailer.add(first_page, checksums)
            if added:
                taken_bytes = self._put(opened.file, trailer, first_page, data, added)
            with stock.lock:
                stock.open_blocks.extend(opened, trailer)
            stored = True
        except OSError as error:
            stock.write_error(device, error, need_bytes)
        finally:
            if not stored:
                with suppress(OSError):
                    taken_bytes = opened.file.taken_bytes()
            settled = stock.settle(opened, need_bytes, taken_bytes)
        return stored and settled

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
