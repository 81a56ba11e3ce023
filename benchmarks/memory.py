"""The memory of processes, as the kernel counts it: RSS and PSS from smaps_rollup."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.job import MIB

_PERIOD_S = 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident and proportional set size, in MiB."""

    rss_mib: float = 0.0
    pss_mib: float = 0.0

    def peak(self, other: Memory) -> Memory:
        return Memory(max(self.rss_mib, other.rss_mib), max(self.pss_mib, other.pss_mib))


def memory_of(pids: Sequence[int]) -> Memory:
    """The sum over processes; one that is gone counts nothing."""
    rss = pss = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("Rss:"):
                rss += int(line.split()[1])
            elif line.startswith("Pss:"):
                pss += int(line.split()[1])
    return Memory(rss * 1024 / MIB, pss * 1024 / MIB)


class Watch:
    """Looks at processes all the time, and so disturbs them: for rounds that do not count."""

    def __init__(self, *groups: Callable[[], Sequence[int]]) -> None:
        self._groups = groups
        self.peaks = [Memory() for _ in groups]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _look(self) -> None:
        for number, pids in enumerate(self._groups):
            self.peaks[number] = self.peaks[number].peak(memory_of(pids()))

    def _run(self) -> None:
        while not self._done.wait(_PERIOD_S):
            self._look()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()
