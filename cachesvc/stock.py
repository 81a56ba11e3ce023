"""The stock: which blocks stand on which device and which are open, under the store's one lock.

Story: before bytes are written they are reserved (`reserve`), and what must leave for them is
unlinked; when they stand, the reservation is replaced by what the file takes (`settle`), or a new
file is shared (`share`). A block goes by eviction, because its file is gone (`forget`) or because
it failed a check (`drop`); a device goes when its disk fails (`disk_error`).

Rules
- One lock guards devices and open table and is never held over I/O: decide under it, then unlink.
  A block that is `leaving` is not written again before its file is gone.
- Writers of one block follow one another: each holds the block's stripe, taken before the lock.
- A device that fails is taken out of use and the node goes on; a full one uses what fits, and tries
  again later. Being short of descriptors or memory is not the device's fault.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from threading import Lock, RLock

import structlog

from cachesvc.core.blocks import name_number
from cachesvc.core.format import Trailer
from cachesvc.core.types import ObjectName
from cachesvc.device import Device
from cachesvc.disk.base import BlockFile, Disk
from cachesvc.metrics import Metrics
from cachesvc.pins import OpenBlock, OpenBlocks, Pin

FULL_REST_S = 30.0  # how long a full device is left alone
_STRIPES = 256
_SHORTAGE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR}
_FULL = {errno.ENOSPC, errno.EDQUOT}

log = structlog.get_logger(__name__)


class Stock:
    """Devices of `capacity_bytes` in all, split evenly, and the open table.

    `recovering` until all that stands on the disks is in the indexes.
    """

    def __init__(
        self,
        disks: Iterable[Disk],
        capacity_bytes: int,
        metrics: Metrics,
        policy: str,
        clock: Callable[[], float],
        max_idle_open_count: int,
    ) -> None:
        disks = list(disks)
        share = capacity_bytes // len(disks)
        self.devices = [Device(disk, share, policy) for disk in disks]
        self.lock = Lock()
        self.open_blocks = OpenBlocks(self.lock, max_idle_open_count)
        self.recovering = True
        self.metrics = metrics
        self._clock = clock
        self._stripes = [RLock() for _ in range(_STRIPES)]
        metrics.stored_bytes.set_function(lambda: self.stored_bytes)
        metrics.stored_blocks.set_function(lambda: self.stored_count)
        metrics.capacity_bytes.set_function(lambda: sum(d.capacity_bytes for d in self.devices))
        for device in self.devices:
            metrics.device_healthy.labels(device.disk.name).set(1)

    @property
    def stored_bytes(self) -> int:
        return sum(device.index.stored_bytes for device in self.devices)

    @property
    def stored_count(self) -> int:
        return sum(len(device.index) for device in self.devices)

    def stripe(self, block_id: bytes) -> RLock:
        """Held by whoever writes the block, or decides about its file."""
        return self._stripes[block_id[0]]

    # -- under the lock

    def home(self, block_id: bytes) -> Device | None:
        """The device that has the block."""
        return next((d for d in self.devices if d.index.get(block_id) is not None), None)

    def none_of(self, name: ObjectName) -> bool:
        """Whether surely no device has a block 0 of the object, of any version."""
        number = name_number(name)
        return not self.recovering and all(d.index.none_of(number) for d in self.devices)

    def share(self, device: Device, file: BlockFile, trailer: Trailer, taken_bytes: int) -> Pin:
        """Take in an open block file, and its block if that is new; the first pin on it."""
        block_id = trailer.block.id
        if device.index.get(block_id) is None:
            block = trailer.block
            first_of = 0 if block.index else name_number(block.version.name)
            device.index.add(block_id, taken_bytes, first_of)
        return self.open_blocks.share(OpenBlock(device, file, trailer, taken_bytes))

    # -- room

    def reserve(self, device: Device, block_id: bytes, need_bytes: int) -> bool:
        """Make room for bytes of the block, by evicting others; whether they fit."""
        with self.lock:
            if block_id in device.leaving:
                return False
            device.regrow(self._clock())
            victims = device.make_room(need_bytes, lambda other: self._stays(other, block_id))
            if victims is None:
                return False
            for victim, _ in victims:
                self.open_blocks.detach(victim)
                device.leaving.add(victim)
            fits = device.used_bytes + need_bytes <= device.capacity_bytes
            device.reserved_bytes += need_bytes if fits else 0
        self.unlink(device, [victim for victim, _ in victims])
        self.metrics.evicted_bytes.labels("capacity").inc(sum(size for _, size in victims))
        return fits

    def _stays(self, block_id: bytes, written_id: bytes) -> bool:
        """Whether evicting a block would be in vain: it is being written, or its pins hold its
        space.
        """
        return block_id == written_id or self.open_blocks.pinned(block_id)

    def release(self, device: Device, need_bytes: int) -> None:
        """Give a reservation back."""
        with self.lock:
            device.reserved_bytes -= need_bytes

    def settle(self, opened: OpenBlock, need_bytes: int, taken_bytes: int) -> bool:
        """Replace a reservation by what the file now takes.

        False: the block was evicted meanwhile.
        """
        device = opened.device
        with self.lock:
            device.reserved_bytes -= need_bytes
            growth_bytes, opened.taken_bytes = taken_bytes - opened.taken_bytes, taken_bytes
            slot = device.index.get(opened.trailer.block.id) if opened.live else None
            if slot is None:
                device.doomed_bytes += growth_bytes
                return False
            device.index.resize(slot, taken_bytes)
        return True

    # -- what goes

    def drop(self, opened: OpenBlock, check: str) -> None:
        """An open block failed a check: remove it, unless it was replaced already."""
        block_id = opened.trailer.block.id
        with self.lock:
            if not opened.live:
                return
            slot = opened.device.index.get(block_id)
            assert slot is not None, f"{opened.trailer.block} is live and not in the index"
            opened.device.index.remove(slot)
            opened.device.leaving.add(block_id)
            size_bytes = opened.taken_bytes
            self.open_blocks.detach(block_id)
        log.warning("block dropped", block=str(opened.trailer.block), why=f"{check} check failed")
        self.metrics.corrupt_blocks.labels(check).inc()
        self.metrics.evicted_bytes.labels("corrupt").inc(size_bytes)
        self.unlink(opened.device, [block_id])

    def forget(self, device: Device, block_id: bytes, reason: str) -> bool:
        """Take a block out of the index; whether it was there."""
        with self.lock:
            slot = device.index.get(block_id)
            if slot is None:
                return False
            size_bytes = device.index.size_bytes(slot)
            device.index.remove(slot)
            self.open_blocks.detach(block_id)
        self.metrics.evicted_bytes.labels(reason).inc(size_bytes)
        return True

    def unlink(self, device: Device, block_ids: list[bytes]) -> None:
        """Remove the files; from now on the blocks may come again."""
        try:
            for block_id in block_ids:
                device.disk.unlink(block_id)
        except OSError as error:
            self.disk_error(device, error)
        with self.lock:
            device.leaving.difference_update(block_ids)

    # -- failure

    def write_error(self, device: Device, error: OSError) -> None:
        """A full device uses what fits for a while, then tries its whole share again."""
        if error.errno not in _FULL:
            self.disk_error(device, error)
            return
        with self.lock:
            device.shrink(device.index.stored_bytes * 15 // 16, self._clock() + FULL_REST_S)
        log.error(
            "device full: using what fits",
            device=device.disk.name,
            why=str(error),
            capacity_bytes=device.capacity_bytes,
        )

    def disk_error(self, device: Device, error: OSError) -> None:
        """Short of descriptors or memory: not the device's fault.

        Anything else takes it out of use.
        """
        if error.errno in _SHORTAGE:
            log.warning("short of resources", device=device.disk.name, why=str(error))
            self.open_blocks.shed()
            return
        with self.lock:
            if device.failure:
                return
            for block_id in device.fail(str(error)):
                self.open_blocks.detach(block_id)
        self.metrics.device_healthy.labels(device.disk.name).set(0)
        log.error("device taken out of use", device=device.disk.name, why=str(error))
