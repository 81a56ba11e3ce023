"""The store: which pages of which blocks this node has, on which device, and room for the next.

Story: a reader pins a block (`pin`), which opens its file once and proves by its trailer that it is
the block asked for; the open file is shared by all pins and kept open for a while after. A fill
writes adjacent pages (`write`): data first, then the trailer that vouches for them, then the index.
Eviction unlinks; whoever holds a pin keeps the bytes.

Rules
- A page, once present, never changes. Presence is said by the trailer alone, in memory while the
  file is open.
- One lock guards index and open table and is never held over I/O; writers of one block follow one
  another.
- A block that cannot prove who it is, or fails a page, is dropped and counted. A device that fails
  is taken out of use and the node goes on; a full one uses what fits, and tries again later.
- No fsync: after a power cut the checksums decide.
"""

from __future__ import annotations

import errno
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from threading import Lock, RLock

import structlog
from xxhash import xxh3_64_intdigest

from cachesvc.core.blocks import BlockRef
from cachesvc.core.format import (
    TRAILER_BYTES,
    FormatError,
    Trailer,
    checksum,
    decode,
    trailer_offset,
)
from cachesvc.device import Device
from cachesvc.disk.base import BlockFile, Disk
from cachesvc.metrics import Metrics

MAX_IDLE_OPEN_COUNT = 4096  # open files kept for the next reader
RECOVER_TRIES = 100  # scans of a device that is short of descriptors, with pauses between
FULL_REST_S = 30.0  # how long a full device is left alone
_STRIPES = 256
_SHORTAGE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_FILE = {
    errno.EISDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.ESPIPE,
    errno.ENOTDIR,
}  # something else has its name

log = structlog.get_logger(__name__)


class OpenBlock:
    """An open block file, shared by all its pins. `live` until the block is evicted or dropped."""

    __slots__ = ("device", "file", "live", "refs", "taken_bytes", "trailer")

    def __init__(self, device: Device, file: BlockFile, trailer: Trailer) -> None:
        self.device = device
        self.file = file
        self.trailer = trailer
        self.refs = 1
        self.live = True
        self.taken_bytes = 0


class Pin:
    """A hold on a block's bytes: while it lasts, what is present stays readable, evicted or not."""

    __slots__ = ("_store", "opened")

    def __init__(self, store: Store, opened: OpenBlock) -> None:
        self._store = store
        self.opened: OpenBlock | None = opened

    @property
    def present(self) -> int:
        """The bitmap of pages that may be read."""
        return self._open.trailer.present

    def checksums(self, first_page: int, beyond_page: int) -> bytes:
        return self._open.trailer.checksums(first_page, beyond_page)

    def fileno(self) -> int:
        return self._open.file.fileno()

    def pread(self, start: int, end: int) -> bytes:
        """The bytes `[start, end)` of the block, unchecked. Fewer if the file was cut short."""
        return self._open.file.pread(end - start, start)

    def readinto(self, view: memoryview, start: int) -> int:
        """The bytes from `start` of the block on, unchecked, into the view; how many there were."""
        return self._open.file.readinto(view, start)

    def page(self, page: int) -> bytes | None:
        """A whole page, checked against its checksum; None if it does not match."""
        block = self._open.trailer.block
        start = page * block.geometry.page_bytes
        data = self.pread(start, start + block.page_length_bytes(page))
        return data if checksum(data) == self.checksums(page, page + 1) else None

    def close(self) -> None:
        """Let go. Closing twice is fine."""
        opened, self.opened = self.opened, None
        if opened is not None:
            self._store._unpin(opened)

    @property
    def _open(self) -> OpenBlock:
        assert self.opened is not None, "the pin was closed"
        return self.opened


class Store:
    """Block files on one or more disks, `capacity_bytes` in all, split evenly.

    Thread-safe. `clock` gives seconds and need only grow. Until `recover` has run to its end, a
    block that is not in the index is looked for on the disks themselves, so that a restarted node
    serves its first hit at once.
    """

    def __init__(
        self,
        disks: Iterable[Disk],
        capacity_bytes: int,
        metrics: Metrics,
        *,
        policy: str = "s3fifo",
        clock: Callable[[], float] = time.monotonic,
        max_idle_open_count: int = MAX_IDLE_OPEN_COUNT,
    ) -> None:
        disks = list(disks)
        share = capacity_bytes // len(disks)
        self.devices = [Device(disk, share, policy) for disk in disks]
        self.recovering = True
        self._metrics = metrics
        self._clock = clock
        self._max_idle_open_count = max_idle_open_count
        self._lock = Lock()
        self._stripes = [RLock() for _ in range(_STRIPES)]
        self._open_blocks: dict[bytes, OpenBlock] = {}
        self._idle: OrderedDict[bytes, OpenBlock] = OrderedDict()
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

    # -- reading

    def pin(self, block: BlockRef, *, hit: bool = True) -> Pin | None:
        """A hold on the block, or None if it is not here. Opens the file if no one has it open.

        hit False: a look or a write, of which the eviction policy is not told.
        """
        with self._lock:
            opened = self._open_blocks.get(block.id)
            if opened is not None:
                self._hold(block.id, opened, hit)
                return Pin(self, opened)
            home = next((d for d in self.devices if d.index.get(block.id) is not None), None)
            unsure = self.recovering
        places = [home] if home else self.devices if unsure else []
        with self._stripes[block.id[0]] if unsure else nullcontext():
            for device in places:
                opened = self._open(device, block.id, hit)
                if opened is not None:
                    return Pin(self, opened)
        return None

    def _hold(self, block_id: bytes, opened: OpenBlock, hit: bool) -> None:
        opened.refs += 1
        self._idle.pop(block_id, None)
        slot = opened.device.index.get(block_id) if hit else None
        if slot is not None:
            opened.device.index.touch(slot)

    def _open(self, device: Device, block_id: bytes, hit: bool) -> OpenBlock | None:
        if device.failure:
            return None
        try:
            file = device.disk.open(block_id)
        except FileNotFoundError:
            self._lost(device, block_id)
            return None
        except OSError as error:
            self._unproven(device, block_id, error)
            return None
        opened = None
        try:
            trailer = self._prove(block_id, file)
            opened = self._register(device, block_id, file, trailer, hit)
        except (FormatError, OSError) as error:
            self._unproven(device, block_id, error)
        finally:
            if opened is None or opened.file is not file:
                file.close()
        return opened

    def _lost(self, device: Device, block_id: bytes) -> None:
        """Its file is gone: forget the block, unless a writer has made it anew meanwhile."""
        with self._stripes[block_id[0]]:
            try:
                device.disk.open(block_id).close()
            except FileNotFoundError:
                self._forget(device, block_id, "lost")
            except OSError as error:
                self._disk_error(device, error)

    def _unproven(self, device: Device, block_id: bytes, error: FormatError | OSError) -> None:
        """What stands in the block's place is no block file of ours, or its disk fails."""
        if isinstance(error, OSError) and error.errno not in _NO_FILE:
            self._disk_error(device, error)
            return
        log.warning("block dropped", block=block_id.hex(), why=str(error))
        self._metrics.corrupt_blocks.labels("trailer").inc()
        if self._forget(device, block_id, "corrupt") or self.recovering:
            self._unlink(device, [block_id])

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
        self, device: Device, block_id: bytes, file: BlockFile, trailer: Trailer, hit: bool
    ) -> OpenBlock | None:
        """Share a freshly opened file; someone else's, if they were faster."""
        taken_bytes = file.taken_bytes()
        with self._lock:
            opened = self._open_blocks.get(block_id)
            if opened is not None:
                self._hold(block_id, opened, hit)
                return opened
            slot = device.index.get(block_id)
            if device.failure or (slot is None and not self.recovering):
                return None
            if slot is not None and hit:
                device.index.touch(slot)
            return self._share(device, block_id, file, trailer, taken_bytes)

    def _share(
        self, device: Device, block_id: bytes, file: BlockFile, trailer: Trailer, taken_bytes: int
    ) -> OpenBlock:
        opened = OpenBlock(device, file, trailer)
        opened.taken_bytes = taken_bytes
        if device.index.get(block_id) is None:
            device.index.add(block_id, taken_bytes)
        self._open_blocks[block_id] = opened
        return opened

    def _unpin(self, opened: OpenBlock) -> None:
        closing = []
        with self._lock:
            opened.refs -= 1
            if opened.refs == 0 and not opened.live:
                opened.device.doomed_bytes -= opened.taken_bytes
                closing.append(opened)
            elif opened.refs == 0:
                self._idle[opened.trailer.block.id] = opened
                while len(self._idle) > self._max_idle_open_count:
                    block_id, oldest = self._idle.popitem(last=False)
                    del self._open_blocks[block_id]
                    closing.append(oldest)
        for one in closing:
            one.file.close()

    # -- writing

    def write(self, block: BlockRef, first_page: int, data: memoryview, checksums: bytes) -> bool:
        """Store adjacent whole pages that begin at `first_page`.

        False: not stored, and nothing is lost by it.

        `data` ends on a page border or at the block's end; `checksums` has 8 bytes for each page.
        Blocks while the disk does; call it from a fill thread.
        """
        assert first_page * block.geometry.page_bytes + len(data) <= block.length_bytes
        with self._stripes[block.id[0]]:
            stored = self._write(block, first_page, data, checksums)
        if not stored:
            self._metrics.unstored_bytes.inc(len(data))
        return stored

    def _write(self, block: BlockRef, first_page: int, data: memoryview, checksums: bytes) -> bool:
        pin = self.pin(block, hit=False)
        if pin is not None:
            opened = pin._open
            try:
                return self._append(opened, block, first_page, data, checksums)
            finally:
                pin.close()
        with self._lock:
            if any(device.index.get(block.id) is not None for device in self.devices):
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
            (device for device in self.devices if not device.failure),
            key=lambda device: xxh3_64_intdigest(block_id + device.disk.name.encode()),
        )[:2]

    def _begin(
        self, device: Device, block: BlockRef, first_page: int, data: memoryview, checksums: bytes
    ) -> bool:
        """The first pages of a block: a new file."""
        need_bytes = len(data) + 2 * TRAILER_BYTES
        if not self._reserve(device, block.id, need_bytes):
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
                self._unlink(device, [block.id])
            self._release(device, need_bytes)
            self._write_error(device, error)
            return False
        with self._lock:
            device.reserved_bytes -= need_bytes
            if device.failure:
                kept = False
            else:
                opened = self._share(device, block.id, file, trailer, taken_bytes)
                kept = True
        if kept:
            self._unpin(opened)
        else:
            file.close()
        return kept

    def _append(
        self,
        opened: OpenBlock,
        block: BlockRef,
        first_page: int,
        data: memoryview,
        checksums: bytes,
    ) -> bool:
        """More pages of a block that has a file."""
        device, need_bytes = opened.device, len(data) + TRAILER_BYTES
        if device.failure or not self._reserve(device, block.id, need_bytes):
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
            self._settle(opened, need_bytes, taken_bytes)
            self._write_error(device, error)
            return False
        with self._lock:
            opened.trailer = trailer
        return self._settle(opened, need_bytes, taken_bytes)

    def _settle(self, opened: OpenBlock, need_bytes: int, taken_bytes: int) -> bool:
        """Replace a reservation by what the file now takes.

        False: the block was evicted meanwhile.
        """
        device = opened.device
        with self._lock:
            device.reserved_bytes -= need_bytes
            growth_bytes, opened.taken_bytes = taken_bytes - opened.taken_bytes, taken_bytes
            slot = device.index.get(opened.trailer.block.id) if opened.live else None
            if slot is None:
                device.doomed_bytes += growth_bytes
                return False
            device.index.resize(slot, taken_bytes)
        return True

    def _put(
        self,
        file: BlockFile,
        trailer: Trailer,
        first_page: int,
        data: memoryview,
        added: int = -1,
    ) -> int:
        """Data, then the trailer that vouches for it.

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

    # -- room, eviction, failure

    def _reserve(self, device: Device, block_id: bytes, need_bytes: int) -> bool:
        with self._lock:
            if block_id in device.leaving:
                return False
            device.regrow(self._clock())
            victims = device.make_room(need_bytes, lambda other: self._stays(other, block_id))
            if victims is None:
                return False
            for victim, _ in victims:
                self._detach(victim)
                device.leaving.add(victim)
            fits = device.used_bytes + need_bytes <= device.capacity_bytes
            device.reserved_bytes += need_bytes if fits else 0
        self._unlink(device, [victim for victim, _ in victims])
        self._metrics.evicted_bytes.labels("capacity").inc(sum(size for _, size in victims))
        return fits

    def _stays(self, block_id: bytes, written_id: bytes) -> bool:
        """Whether evicting a block would be in vain: it is being written, or its pins hold its
        space.
        """
        opened = self._open_blocks.get(block_id)
        return block_id == written_id or (opened is not None and opened.refs > 0)

    def _release(self, device: Device, need_bytes: int) -> None:
        with self._lock:
            device.reserved_bytes -= need_bytes

    def _detach(self, block_id: bytes) -> None:
        """Under the lock: no new pin finds the open file; those that hold it keep it."""
        opened = self._open_blocks.pop(block_id, None)
        if opened is None:
            return
        opened.live = False
        if self._idle.pop(block_id, None) is not None:
            opened.file.close()
        else:
            opened.device.doomed_bytes += opened.taken_bytes

    def drop(self, pin: Pin, check: str) -> None:
        """The pinned block failed a check: remove it, unless it was replaced already."""
        opened = pin._open
        block_id = opened.trailer.block.id
        with self._lock:
            if not opened.live:
                return
            slot = opened.device.index.get(block_id)
            assert slot is not None, f"{opened.trailer.block} is live and not in the index"
            opened.device.index.remove(slot)
            opened.device.leaving.add(block_id)
            size_bytes = opened.taken_bytes
            self._detach(block_id)
        log.warning("block dropped", block=str(opened.trailer.block), why=f"{check} check failed")
        self._metrics.corrupt_blocks.labels(check).inc()
        self._metrics.evicted_bytes.labels("corrupt").inc(size_bytes)
        self._unlink(opened.device, [block_id])

    def read_failed(self, pin: Pin, error: OSError) -> None:
        """Reading the pinned file failed: decide by errno what that says about its device."""
        self._disk_error(pin._open.device, error)

    def _forget(self, device: Device, block_id: bytes, reason: str) -> bool:
        """Take a block out of the index; whether it was there."""
        with self._lock:
            slot = device.index.get(block_id)
            if slot is None:
                return False
            size_bytes = device.index.size_bytes(slot)
            device.index.remove(slot)
            self._detach(block_id)
        self._metrics.evicted_bytes.labels(reason).inc(size_bytes)
        return True

    def _unlink(self, device: Device, block_ids: list[bytes]) -> None:
        """Remove the files; from now on the blocks may come again."""
        try:
            for block_id in block_ids:
                device.disk.unlink(block_id)
        except OSError as error:
            self._disk_error(device, error)
        with self._lock:
            device.leaving.difference_update(block_ids)

    def _write_error(self, device: Device, error: OSError) -> None:
        """A full device uses what fits for a while, then tries its whole share again."""
        if error.errno not in _FULL:
            self._disk_error(device, error)
            return
        with self._lock:
            device.shrink(device.index.stored_bytes * 15 // 16, self._clock() + FULL_REST_S)
        log.error(
            "device full: using what fits",
            device=device.disk.name,
            why=str(error),
            capacity_bytes=device.capacity_bytes,
        )

    def _disk_error(self, device: Device, error: OSError) -> None:
        """Short of descriptors or memory: not the device's fault.

        Anything else takes it out of use.
        """
        if error.errno in _SHORTAGE:
            log.warning("short of resources", device=device.disk.name, why=str(error))
            self._shed()
            return
        with self._lock:
            if device.failure:
                return
            for block_id in device.fail(str(error)):
                self._detach(block_id)
        self._metrics.device_healthy.labels(device.disk.name).set(0)
        log.error("device taken out of use", device=device.disk.name, why=str(error))

    def _shed(self) -> None:
        """Close half of the files that are open for nobody: others need the descriptors more."""
        with self._lock:
            ids = list(self._idle)[: (len(self._idle) + 1) // 2]
            closing = [self._idle.pop(block_id) for block_id in ids]
            for block_id in ids:
                del self._open_blocks[block_id]
        for one in closing:
            one.file.close()

    # -- restart

    def recover(self) -> Iterator[int]:
        """Take in what stands on the disks, one block a step, while serving goes on. Each step
        yields the blocks of its device so far; -1 asks for a pause, because descriptors are short.

        Files that cannot prove who they are are removed. Beyond the capacity, eviction begins at
        once.
        """
        for device in self.devices:
            for _ in range(RECOVER_TRIES):
                try:
                    yield from self._recover_device(device)
                    break
                except OSError as error:
                    self._disk_error(device, error)
                    if device.failure:
                        break
                    yield -1
        self.recovering = False

    def _recover_device(self, device: Device) -> Iterator[int]:
        unopened = []
        for block_id in device.disk.scan():
            if not self._recover_block(device, block_id):
                unopened.append(block_id)
            yield len(device.index)
        for block_id in unopened:  # short of descriptors: once more, then it must go
            self._recover_block(device, block_id, last_try=True)
            yield len(device.index)

    def _recover_block(self, device: Device, block_id: bytes, *, last_try: bool = False) -> int:
        with self._stripes[block_id[0]]:
            with self._lock:
                homes = [one for one in self.devices if one.index.get(block_id) is not None]
            if device.failure or device in homes:
                return 0
            if homes:  # written again there, while this device was out of use
                self._unlink(device, [block_id])
                return 0
            opened = self._open(device, block_id, hit=False)
            if opened is None:
                if last_try:
                    self._unlink(device, [block_id])
                return 0
            self._unpin(opened)
            with self._lock:
                idle = self._idle.pop(block_id, None)
                if idle is not None:
                    del self._open_blocks[block_id]
        if idle is not None:
            idle.file.close()
        self._reserve(device, block_id, 0)
        return 1

    def close(self) -> None:
        """Close idle files; pins that are still held stay readable.

        The disks are their opener's.
        """
        with self._lock:
            for block_id in list(self._open_blocks):
                self._detach(block_id)
