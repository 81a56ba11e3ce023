"""The opener: from a block to a pin on its file, which first proves by its trailer who it is.

Story: `pin` finds the block's open file, or opens the file where the index says that it stands
(while the node recovers: wherever one has its name), reads the trailer and shares the file. Whoever
must not wait for a disk asks first what is `at_hand`.

Rules: no lock is held while a file is opened and proves itself, and no writer is waited for. So
what was seen counts only if nothing happened to the block's file meanwhile, as its mark tells
(pins.py); else look again. A block that cannot prove who it is is dropped and counted; a file that
is gone is forgotten.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

import structlog

from cachesvc.core.format import TRAILER_BYTES, FormatError, Trailer, decode, trailer_offset
from cachesvc.device import Device
from cachesvc.disk.base import BlockFile
from cachesvc.pins import Pin
from cachesvc.stock import Stock

_NO_FILE = {
    errno.EISDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.ESPIPE,
    errno.ENOTDIR,
}  # something else has its name
_MAX_LOOKS = 3  # at a block whose file others make and remove meanwhile: then it is a miss

log = structlog.get_logger(__name__)


class Opener:
    """Opens the blocks of a stock. Thread-safe."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._open_blocks = stock.open_blocks

    def pin(self, block_id: bytes, *, hit: bool) -> Pin | None:
        """A pin on the block, or None if it is not here. hit: the eviction policy is told."""
        for _ in range(_MAX_LOOKS):
            with self._stock.lock:
                pin = self._pin_open(block_id, hit)
                if pin is not None:
                    return pin
                places = self._stock.places(block_id)
                mark = self._open_blocks.mark(block_id)
            for device in places:
                pin = self.open(device, block_id, mark, hit=hit)
                if pin is not None:
                    return pin
            if mark == self._open_blocks.mark(block_id):
                break
        return None

    def at_hand(self, block_id: bytes) -> int | None:
        """The block's present pages, as far as memory knows; None: a file would have to be opened.

        Asks no disk and waits for no one.
        """
        stock = self._stock
        with stock.lock:
            opened = self._open_blocks.get(block_id)
            if opened is not None:
                return opened.trailer.present
            return None if stock.recovering or stock.home(block_id) is not None else 0

    def pin_same(self, block_id: bytes, file: BlockFile) -> Pin | None:
        """A pin on the file that is open for the block, if it is this one."""
        with self._stock.lock:
            opened = self._open_blocks.get(block_id)
            same = opened is not None and opened.file is file
            return self._pin_open(block_id, hit=True) if same else None

    def touch(self, block_ids: Iterable[bytes]) -> None:
        """Tell the eviction policy of hits on blocks, of those whose files are open."""
        with self._stock.lock:
            for block_id in block_ids:
                opened = self._open_blocks.get(block_id)
                if opened is not None:
                    opened.device.touch(block_id)
                    self._open_blocks.used(block_id)

    def _pin_open(self, block_id: bytes, hit: bool) -> Pin | None:
        """Under the lock: a pin on a file that is open already."""
        opened = self._open_blocks.get(block_id)
        if opened is None:
            return None
        if hit:
            opened.device.touch(block_id)
        return self._open_blocks.pin(opened)

    def open(self, device: Device, block_id: bytes, mark: int, *, hit: bool) -> Pin | None:
        """A pin on what the device has under the block's name, if it can prove itself and nothing
        happened to it since the mark.
        """
        if device.failure:
            return None
        try:
            file = device.disk.open(block_id)
        except FileNotFoundError:
            if device.index.get(block_id) is not None:
                self._stock.discard(device, block_id, mark, "lost")
            return None
        except OSError as error:
            self._unproven(device, block_id, mark, error)
            return None
        pin = None
        try:
            trailer = self._prove(block_id, file)
            pin = self._register(device, block_id, mark, file, trailer, hit)
        except (FormatError, OSError) as error:
            self._unproven(device, block_id, mark, error)
        finally:
            if pin is None or pin.held.file is not file:
                file.close()
        return pin

    def _unproven(
        self, device: Device, block_id: bytes, mark: int, error: FormatError | OSError
    ) -> None:
        """What stands in the block's place is no block file of ours, or its disk fails."""
        stock = self._stock
        if isinstance(error, OSError) and error.errno not in _NO_FILE:
            stock.disk_error(device, error)
        elif stock.discard(device, block_id, mark, "corrupt"):
            log.warning("block dropped", block=block_id.hex(), why=str(error))
            stock.metrics.corrupt_blocks.labels("trailer").inc()

    def _prove(self, block_id: bytes, file: BlockFile) -> Trailer:
        """The trailer, if the file is what its name says; else FormatError."""
        size_bytes = file.size_bytes()
        trailer = decode(file.pread(TRAILER_BYTES, max(0, size_bytes - TRAILER_BYTES)))
        if trailer.block.id != block_id:
            raise FormatError(f"the file holds {trailer.block}, not what its name says")
        if size_bytes != trailer_offset(trailer.block) + TRAILER_BYTES:
            raise FormatError(f"the file has {size_bytes} bytes: cut or grown")
        return trailer

    def _register(
        self,
        device: Device,
        block_id: bytes,
        mark: int,
        file: BlockFile,
        trailer: Trailer,
        hit: bool,
    ) -> Pin | None:
        """Share a freshly opened file; someone else's, if they were faster."""
        taken_bytes = file.taken_bytes()
        with self._stock.lock:
            pin = self._pin_open(block_id, hit)
            if pin is not None:
                return pin
            known = device.index.get(block_id) is not None
            changed = mark != self._open_blocks.mark(block_id)
            if changed or device.failure or not (known or self._stock.recovering):
                return None
            if not known:
                device.found(taken_bytes)
            elif hit:
                device.touch(block_id)
            return self._stock.share(device, file, trailer, taken_bytes)
