"""The object that the tests of the gRPC service read, and the ranges that they ask for."""

from __future__ import annotations

from tests.support import pattern

DATA = pattern((3 << 20) + 70_001)
END = len(DATA)
FOREVER = (1 << 64) - 1
RANGES = [
    *((0, FOREVER), (0, 0), (0, 1), (END - 1, FOREVER), (END, FOREVER), (END, END + 9), (5, 5)),
    *((100, 70_000), (16_384, 32_768), (16_383, 32_769), ((1 << 20) - 1, (1 << 20) + 1)),
    *((500_000, 2_600_000), (END - 70_002, END), (0, 1 << 50)),
]
