"""Where a Region lies, and that nothing else is touched on the way there."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest
from cachesvc_client import addresses
from cachesvc_client.addresses import HUGE_BYTES, PAGE_BYTES

from cachesvc.core.memory import address_of
from tests.unit.lying import SIZE, reserved

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("start", [0, PAGE_BYTES, HUGE_BYTES, HUGE_BYTES + 5 * PAGE_BYTES])
@pytest.mark.parametrize("end", [8 * HUGE_BYTES, 8 * HUGE_BYTES + 9 * PAGE_BYTES, SIZE, SIZE - 1])
def test_a_large_region_lies_as_huge_pages_of_its_object_do(start: int, end: int) -> None:
    """In a process of its own: where the kernel puts mappings depends on those that are there."""
    if start % HUGE_BYTES and -(-(end - start) // PAGE_BYTES) * PAGE_BYTES % HUGE_BYTES == 0:
        pytest.skip("new kernels put mappings of whole huge pages on their borders")
    script = f"from tests.unit.lying import lie_well; lie_well({start}, {end})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("start", "end"), [(0, 5), (0, HUGE_BYTES - 1), (3, SIZE)])
def test_any_other_region_lies_anywhere(start: int, end: int) -> None:
    with reserved(start, end) as region:
        assert len(region) == end - start


def test_what_is_taken_already_is_not_occupied() -> None:
    with mmap.mmap(-1, PAGE_BYTES) as memory:
        memory[:4] = b"here"
        with addresses.occupied(address_of(memory), PAGE_BYTES):
            assert memory[:4] == b"here"
        assert memory[:4] == b"here"
