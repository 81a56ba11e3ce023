"""Recovery: after a start, take in what stands on the disks, while serving goes on.

Rules: a file that cannot prove who it is is removed; one that could not be opened for lack of
descriptors is tried once more and then removed too, because a file outside the index would take
space that nobody counts. What was seen while the block's mark changed, which it shares with others,
says nothing: look again. Beyond the capacity, eviction begins at once. No file stays open for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from cachesvc.device import Device
from cachesvc.opener import Opener
from cachesvc.stock import Stock

RECOVER_TRIES = 100  # scans of a device that is short of descriptors, with pauses between


class Recovery:
    """Recovers a stock; `steps` may run once."""

    def __init__(self, stock: Stock, opener: Opener) -> None:
        self._stock = stock
        self._opener = opener

    def steps(self) -> Iterator[int]:
        """One block a step (see Store.recover)."""
        for device in self._stock.devices:
            for _ in range(RECOVER_TRIES):
                try:
                    yield from self._device(device)
                    break
                except OSError as error:
                    self._stock.disk_error(device, error)
                    if device.failure:
                        break
                    yield -1
        self._stock.recovering = False

    def _device(self, device: Device) -> Iterator[int]:
        unopened = []
        for block_id in device.disk.scan():
            if not self._block(device, block_id):
                unopened.append(block_id)
            yield len(device.index)
        for block_id in unopened:  # short of descriptors: once more, then it must go
            self._block(device, block_id, last_try=True)
            yield len(device.index)

    def _block(self, device: Device, block_id: bytes, *, last_try: bool = False) -> bool:
        """Whether the block was taken in."""
        stock = self._stock
        with stock.stripe(block_id):
            while True:
                with stock.lock:
                    homes = [one for one in stock.devices if one.index.get(block_id) is not None]
                    mark = stock.open_blocks.mark(block_id)
                if device.failure or device in homes:
                    return False
                if homes:  # written again there, while this device was out of use
                    stock.unlink(device, [block_id])
                    return False
                pin = self._opener.open(device, block_id, mark, hit=False)
                if pin is not None:
                    break
                if last_try and stock.discard(device, block_id, mark, "lost"):
                    return False
                if mark == stock.open_blocks.mark(block_id):
                    return False
            pin.close()
            idle = stock.open_blocks.take_idle(block_id)
        if idle is not None:
            idle.file.close()
        stock.reserve(device, block_id, 0)
        return True
