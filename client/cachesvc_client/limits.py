"""Whether the kernel will let this process map so much: asked before anything is fetched.

Two limits stand in the way of a large Region: the number of mappings of a process
(vm.max_map_count, 65,530 unless raised, which is 511 GiB in blocks of 8 MiB) and its address space
(RLIMIT_AS, ulimit -v). Linux only.
"""

from __future__ import annotations

import mmap
import resource
from contextlib import suppress
from pathlib import Path

from cachesvc.core.errors import CacheError, Retry
from cachesvc.core.types import ObjectName

_MARGIN_COUNT = 1024  # mappings left to the rest of the process
_FEW_COUNT = 256  # so few are not worth counting what is there
_DEFAULT_MAX_COUNT = 65_530


class RegionRefused(CacheError, MemoryError):
    """This process cannot map so much; the message says which limit to raise."""

    retry = Retry.NEVER


def check(name: ObjectName, length_bytes: int, piece_count: int) -> None:
    """Raises RegionRefused if a Region of that many bytes, in so many pieces, will not fit."""
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit_bytes != resource.RLIM_INFINITY and _taken_bytes() + length_bytes > limit_bytes:
        raise RegionRefused(
            f"{name}: a Region of {length_bytes} bytes does not fit into this process, whose"
            f" address space is limited to {limit_bytes} bytes (RLIMIT_AS): raise that (ulimit -v),"
            " or map a part: map(uri, start, end)"
        )
    if piece_count <= _FEW_COUNT:
        return
    most, taken = _max_count(), _mapping_count()
    if taken + piece_count + _MARGIN_COUNT > most:
        raise RegionRefused(
            f"{name}: a Region of {length_bytes} bytes takes {piece_count} mappings; this process"
            f" has {taken}, and {most} is the most (vm.max_map_count): raise it, as in sysctl -w"
            f" vm.max_map_count={2 * (taken + piece_count + _MARGIN_COUNT)}, or map a part:"
            " map(uri, start, end)"
        )


def _taken_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def _max_count() -> int:
    with suppress(OSError, ValueError):
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    return _DEFAULT_MAX_COUNT


def _mapping_count() -> int:
    with suppress(OSError):
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    return 0
