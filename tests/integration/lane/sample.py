"""What the tests of the lane read, and the ranges that they ask for."""

from __future__ import annotations

from tests.support import pattern

DATA = pattern((3 << 20) + 70_001)
END = len(DATA)

RANGES: list[tuple[int, int | None]] = [
    *((0, None), (0, 0), (0, 1), (END - 1, None), (END, None), (END, END + 9), (5, 5)),
    *((100, 70_000), (16_384, 32_768), (16_383, 32_769), ((1 << 20) - 1, (1 << 20) + 1)),
    *((500_000, 2_600_000), (END - 70_002, END), (0, 1 << 50)),
]


def expected(start: int, end: int | None) -> bytes:
    return DATA[start : END if end is None else end]
