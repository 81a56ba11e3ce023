"""Many threads at one store: no page is lost, and no wrong byte is shown."""

from __future__ import annotations

import random
from contextlib import closing
from threading import Barrier, Event, Thread

from cachesvc.disk.memory import MemoryDisk
from tests.support import FILE_BYTES, block_data, until
from tests.unit.store.bench import BLOCK, BLOCKS, DATA, Bench


def test_writers_of_one_block_from_many_threads_lose_nothing(bench: Bench) -> None:
    barrier, problems = Barrier(8), []

    def work(seed: int) -> None:
        order = [(block, page) for block in BLOCKS[:4] for page in range(8)]
        random.Random(seed).shuffle(order)
        barrier.wait()
        for block, page in order:
            if not bench.put(block, page, page + 1 + seed % 2):
                problems.append((block, page))

    threads = [Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert all(bench.has(block) for block in BLOCKS[:4])
    assert bench.store.stored_bytes == 4 * FILE_BYTES
    device = bench.store.devices[0]
    assert (device.reserved_bytes, device.doomed_bytes) == (0, 0)


def test_readers_writers_and_eviction_at_once_never_show_a_wrong_byte(bench: Bench) -> None:
    capacity_bytes = 8 * FILE_BYTES
    bench.open(capacity_bytes, max_idle=2)
    problems: list[str] = []
    barrier = Barrier(6)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        barrier.wait()
        for _ in range(250):
            block = chance.choice(BLOCKS[:-1])
            if seed % 2:
                first = chance.randrange(8)
                bench.put(block, first, first + chance.randrange(1, 4))
            elif pin := bench.store.pin(block):
                with closing(pin):
                    for page in range(8):
                        expected = block_data(block, DATA)[page * 128 : page * 128 + 128]
                        if pin.present >> page & 1 and pin.page(page) != expected:
                            problems.append(f"{block} page {page}")
                    if chance.random() < 0.05:
                        bench.store.drop(pin, "page")

    def guarded(seed: int) -> None:
        try:
            work(seed)
        except BaseException as error:
            problems.append(repr(error))
            raise

    threads = [Thread(target=guarded, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    device = bench.store.devices[0]
    assert (device.reserved_bytes, device.doomed_bytes) == (0, 0)
    assert bench.store.stored_bytes <= capacity_bytes
    assert bench.count("device_healthy", device=bench.disks[0].name) == 1


class SlowOpenDisk(MemoryDisk):
    """A disk whose next `open` stops, after it looked, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping = False
        self.stopped, self.go = Event(), Event()

    def open(self, block_id: bytes):  # type: ignore[no-untyped-def]
        if not self.stopping:
            return super().open(block_id)
        self.stopping = False
        try:
            return super().open(block_id)
        finally:
            self.stopped.set()
            self.go.wait(20)


def test_a_block_written_again_while_a_reader_looks_for_it_is_not_lost() -> None:
    """The reader found no file; by the time it says so, a writer has stored the block anew."""
    disk = SlowOpenDisk()
    bench = Bench(disk)
    bench.open(max_idle=0)
    bench.put(BLOCK)
    del disk.files[BLOCK.id]
    disk.stopping = True
    reader = Thread(target=lambda: bench.has(BLOCK))
    reader.start()
    assert disk.stopped.wait(20)
    writer = Thread(target=lambda: bench.put(BLOCK))
    writer.start()
    disk.go.set()
    reader.join()
    writer.join()
    assert bench.store.stored_count == len(disk.files)
    bench.store.close()


def test_a_write_does_not_wait_for_a_reader_of_another_block() -> None:
    disk = SlowOpenDisk()
    bench = Bench(disk)
    bench.open(max_idle=0)
    bench.put(BLOCK)
    disk.stopping = True
    reader = Thread(target=lambda: bench.has(BLOCK))
    reader.start()
    assert disk.stopped.wait(20)
    other = next(block for block in BLOCKS[1:] if block.id[0] != BLOCK.id[0])
    assert bench.put(other)
    disk.go.set()
    reader.join()
    until(lambda: disk.open_count == 0, "all files are closed")
    bench.store.close()
