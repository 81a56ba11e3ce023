"""Where Regions lie, asked in a process of its own: importing little, because many ask."""

from __future__ import annotations

from pathlib import Path

from cachesvc_client.addresses import HUGE_BYTES
from cachesvc_client.region import Canvas, Region

from cachesvc.core.memory import address_of
from cachesvc.core.types import ObjectName, ObjectVersion

NAME = ObjectName("bucket", "key")
SIZE = 16 * HUGE_BYTES + 100


def reserved(start: int, end: int) -> Region:
    """A Region of `[start, end)` of an object of SIZE."""
    canvas = Canvas(NAME, start, end, 8 << 20)
    canvas.begin(ObjectVersion(NAME, '"v1"', SIZE))
    region = canvas.finish()
    assert isinstance(region, Region)
    return region


def lie_well(start: int, end: int) -> None:
    """Three of them lie as huge pages of their object do, and leave no mapping behind."""
    before = Path("/proc/self/maps").read_text().count("\n")
    kept = []
    for _ in range(3):
        kept.append(reserved(start, end))
        assert len(kept[-1]) == end - start
        assert (address_of(kept[-1]) - start) % HUGE_BYTES == 0
    for region in kept:
        region.close()
    assert Path("/proc/self/maps").read_text().count("\n") <= before + 2
