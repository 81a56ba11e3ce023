"""The event loop never waits for a disk: others open files and read pages for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cachesvc.disk.memory import MemoryDisk
from tests.support import NAME, open_rig, read_of, received, run, soon
from tests.unit.reader.sample import DATA, fill


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("wanted", [(0, None), (10, 20), (100, 5000)])
@pytest.mark.parametrize("known", [True, False])
def test_the_event_loop_opens_no_file_and_reads_no_page(
    wanted: tuple[int, int | None], verify: bool, known: bool
) -> None:
    async def body() -> None:
        disk = MemoryDisk()
        async with open_rig(disks=[disk]) as rig:
            await fill(rig)
        if known:  # else the fill, which MemoryOrigin runs on the loop, would look for its file
            del disk.files[min(disk.files)]
        async with open_rig(disks=[disk], recovered=known) as rig:
            rig.origin.put(NAME, DATA)
            on_loop = []
            here = threading.get_ident()
            disk.fail = lambda op: on_loop.append(op) if threading.get_ident() == here else None
            start, end = wanted
            assert await rig.read(wanted, verify=verify) == DATA[start:end]
            disk.fail = lambda _op: None
            assert set(on_loop) & {"open", "pread"} == set()

    run(body)


def test_a_reader_cancelled_while_a_file_is_opened_leaves_nothing_behind() -> None:
    async def body() -> None:
        disk = MemoryDisk()
        async with open_rig(disks=[disk]) as rig:
            await fill(rig)
        async with open_rig(disks=[disk]) as rig:
            rig.origin.put(NAME, DATA)
            opening, go_on = threading.Event(), threading.Event()

            def slow(op: str) -> None:
                if op == "open":
                    opening.set()
                    go_on.wait()

            disk.fail = slow
            answer = await rig.reader.read(read_of())
            task = asyncio.create_task(received(answer))
            await soon(opening.is_set, "a file is being opened")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            disk.fail = lambda _op: None
            go_on.set()
            await soon(lambda: disk.open_count > 0, "it was opened in spite of that")

    run(body)
