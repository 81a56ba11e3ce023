"""The stock: which blocks stand on which device and which are open, under the store's one lock.

Story: before bytes are written they are reserved (`reserve`), and what must leave for them is
unlinked; when they stand, the reservation is replaced by what the file takes (`settle`), or a new
file is shared (`share`). A block goes by eviction, because its file is gone (`forget`) or because
it failed a check (`drop`); a device goes when its disk fails (`disk_error`).

Rules
- One lock guards devices and open table and is never held over I/O: decide under it, then close and
  unlink. A block that is `leaving` is not written again before its file is gone.
- Writers of one block follow one another: each holds the block's stripe, taken before the lock.
  Readers take the lock alone, and look for no file that is being made.
- What leaves counts as taken until its file is gone. A writer whom that leaves without room evicts
  more, or, where much leaves already (_MOST_LEAVING_PART), waits for it.
- Whatever ends a write, its reservation is given back.
- A device that fails is taken out of use and the node goes on; a full one uses what fits, and tries
  again later. Being short of descriptors or memory is not the device's fault.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock

import structlog

from cachesvc.core.blocks import name_number
from cachesvc.core.format import Trailer
from cachesvc.core.types import ObjectName
from cachesvc.device import Device
from cachesvc.disk.base import BlockFile, Disk, Space
from cachesvc.metrics import Metrics
from cachesvc.pins import OpenBlock, OpenBlocks, Pin

FULL_REST_S = 30.0  # how long a full device is left alone
SPACE_INTERVAL_S = 0.5  # between two looks at what a device's file system has left
_STRIPES = 256
# So much may be leaving before a writer waits rather than evicts more: a part of the device, and
_MOST_LEAVING_PART, _MOST_LEAVING_BYTES = 64, 256 << 20
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
        self._stripes = [Lock() for _ in range(_STRIPES)]
        self._gone = Condition(self.lock)  # files that were leaving
        self._made: set[bytes] = set()  # whose files are being made just now
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

    def stripe(self, block_id: bytes) -> Lock:
        """Held by whoever writes the block, or takes it in."""
        return self._stripes[block_id[0]]

    # -- under the lock

    def home(self, block_id: bytes) -> Device | None:
        """The device that has the block."""
        return next((d for d in self.devices if d.index.get(block_id) is not None), None)

    def places(self, block_id: bytes) -> list[Device]:
        """Where its file may stand: on the device that has it, while recovering on any."""
        home = self.home(block_id)
        if home is not None:
            return [home]
        if not self.recovering or block_id in self._made:
            return []
        return [device for device in self.devices if block_id not in device.leaving]

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

    # -- what is made

    @contextmanager
    def making(self, block_id: bytes) -> Iterator[bool]:
        """While the block's first file is made, nobody looks for it. False: it has one."""
        with self.lock:
            fresh = self.home(block_id) is None
            if fresh:
                self._made.add(block_id)
                self.open_blocks.changed(block_id)
        try:
            yield fresh
        finally:
            with self.lock:
                self._made.discard(block_id)

    def reserve(self, device: Device, block_id: bytes, need_bytes: int) -> bool:
        """Make room for bytes of the block's file, by evicting others; whether they fit. Returns
        when what left for them is gone, and an older file of the block.
        """
        if need_bytes:
            self._look(device)
        with self.lock:
            self._gone.wait_for(lambda: block_id not in device.leaving)
            now = self._clock()
            device.regrow(now)
            leaving, leaving_bytes = set(device.leaving), device.leaving_bytes
            most_bytes = min(device.capacity_bytes // _MOST_LEAVING_PART, _MOST_LEAVING_BYTES)
            victims = device.make_room(
                need_bytes,
                leaving_bytes if leaving_bytes <= most_bytes else 0,
                lambda other: self._stays(other, block_id),
                now,
            )
            if victims is None:
                return False
            ids = [victim for victim, _ in victims]
            closing = self.open_blocks.detach(ids)
            device.leaving.update(victims)
            room_bytes = device.capacity_bytes - device.used_bytes
            fits = need_bytes <= room_bytes
            device.reserved_bytes += need_bytes if fits else 0
        try:
            if ids:
                self.remove(device, ids, closing)
            if fits and need_bytes + leaving_bytes > room_bytes:
                with self.lock:
                    self._gone.wait_for(lambda: leaving.isdisjoint(device.leaving))
        except BaseException:
            self.release(device, need_bytes if fits else 0)
            raise
        self.metrics.evicted_bytes.labels("capacity").inc(sum(size for _, size in victims))
        return fits

    def _look(self, device: Device, short_bytes: int = 0) -> Space | None:
        """Ask the device's file system what it has left, if that was not done just now, or a write
        has failed.
        """
        with self.lock:
            now = self._clock()
            if device.failure or not (short_bytes or now >= device.looked_at + SPACE_INTERVAL_S):
                return None
            device.looked_at = now
            before = device.account()
        try:
            space = device.disk.space()
        except OSError as error:
            self.disk_error(device, error)
            return None
        with self.lock:
            device.look(space, before, now, short_bytes)
        return space

    def _stays(self, block_id: bytes, written_id: bytes) -> bool:
        """Whether evicting a block would be in vain: it is being written, or its pins hold its
        space.
        """
        return block_id == written_id or self.open_blocks.pinned(block_id)

    def release(self, device: Device, need_bytes: int) -> None:
        """Give a reservation back."""
        with self.lock:
            device.reserved_bytes -= need_bytes
            device.freed_bytes += need_bytes

    def take_in(
        self, device: Device, file: BlockFile, trailer: Trailer, taken_bytes: int, need_bytes: int
    ) -> Pin | None:
        """Replace a reservation by the new file that it was for; the first pin on it.

        None: the device failed meanwhile.
        """
        with self.lock:
            pin = None if device.failure else self.share(device, file, trailer, taken_bytes)
            device.reserved_bytes -= need_bytes
        return pin

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
            opened.device.leaving[block_id] = 0  # its pin has it counted as doomed
            size_bytes = opened.taken_bytes
            closing = self.open_blocks.detach([block_id])
        self.remove(opened.device, [block_id], closing)
        self.metrics.corrupt_blocks.labels(check).inc()
        self.metrics.evicted_bytes.labels("corrupt").inc(size_bytes)
        log.warning("block dropped", block=str(opened.trailer.block), why=f"{check} check failed")

    def discard(self, device: Device, block_id: bytes, mark: int, reason: str) -> bool:
        """What stands under the block's name was found to be no block, or nothing stands there:
        forget and remove it. False: something happened to it since the mark.
        """
        with self.lock:
            if mark != self.open_blocks.mark(block_id):
                return False
            slot, size_bytes = device.index.get(block_id), 0
            if slot is not None:
                size_bytes = device.index.size_bytes(slot)
                device.index.remove(slot)
            closing = self.open_blocks.detach([block_id])
            device.leaving[block_id] = size_bytes
        self.remove(device, [block_id], closing)
        self.metrics.evicted_bytes.labels(reason).inc(size_bytes)
        return True

    def remove(self, device: Device, block_ids: list[bytes], closing: list[BlockFile]) -> None:
        """Close files, and remove those of the blocks."""
        try:
            for file in closing:
                file.close()
        finally:
            self.unlink(device, block_ids)

    def unlink(self, device: Device, block_ids: list[bytes]) -> None:
        """Remove the files; from now on the blocks may come again."""
        try:
            for block_id in block_ids:
                try:
                    device.disk.unlink(block_id)
                except OSError as error:
                    self.disk_error(device, error)
        finally:
            with self.lock:
                for block_id in block_ids:
                    device.gone(block_id)
                self._gone.notify_all()

    # -- failure

    def write_error(self, device: Device, error: OSError, need_bytes: int) -> None:
        """Writing `need_bytes` failed. A full device uses what fits; one that is full although its
        file system has room, by a quota perhaps, finds out what fits by using less for a while.
        """
        if error.errno not in _FULL:
            self.disk_error(device, error)
            return
        space = self._look(device, need_bytes)
        with self.lock:
            if space is None or not space.total_bytes or space.free_bytes >= need_bytes:
                fits_bytes = (device.used_bytes - need_bytes) * 15 // 16
                device.shrink(fits_bytes, self._clock() + FULL_REST_S)
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
            closing = self.open_blocks.detach(device.fail(str(error)))
        self.metrics.device_healthy.labels(device.disk.name).set(0)
        log.error("device taken out of use", device=device.disk.name, why=str(error))
        for file in closing:
            file.close()
