"""The memory of processes, as the kernel counts it, without looking while a clock runs.

RSS is the peak, which the kernel keeps itself (VmHWM) and forgets when told so; PSS, where shared
pages are divided among those who share them, has to be looked at (smaps_rollup).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.job import MIB

_FORGET_PEAK = "5"  # proc(5), clear_refs


def _sum_mib(pids: Sequence[int], file: str, field: str) -> float:
    """A field of a file of /proc, over all processes; one that is gone counts nothing."""
    total_kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    total_kib += int(line.split()[1])
    return total_kib * 1024 / MIB


def pss_mib(pids: Sequence[int]) -> float:
    """Proportional set size, now."""
    return _sum_mib(pids, "smaps_rollup", "Pss")


def peak_rss_mib(pids: Sequence[int]) -> float:
    """The most that was resident since `forget_peak`, or the start."""
    return _sum_mib(pids, "status", "VmHWM")


def forget_peak(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text(_FORGET_PEAK)
