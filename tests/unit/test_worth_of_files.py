"""Which reads come as files to a client on the node's host, and which as bytes."""

from __future__ import annotations

import pytest
from cachesvc_client.passed import COPIED_BYTES, SHOWN_BYTES, worth
from cachesvc_client.region import Canvas
from cachesvc_client.target import Place

from cachesvc.core.request import ReadRequest, StatRequest
from tests.support import NAME

COPIES = Place(0, memoryview(bytearray(9)))
SHOWS = Canvas(NAME, 0, 1 << 30, 8 << 20)


@pytest.mark.parametrize(("target", "least_bytes"), [(COPIES, COPIED_BYTES), (SHOWS, SHOWN_BYTES)])
def test_a_range_is_worth_a_file_from_some_size_on(
    target: Place | Canvas, least_bytes: int
) -> None:
    def is_worth(*ranges: tuple[int, int | None]) -> bool:
        return worth(ReadRequest(NAME, ranges), target)

    assert not is_worth((5, 4 + least_bytes))
    assert is_worth((5, 5 + least_bytes))
    assert is_worth((5, None))
    assert not is_worth((0, least_bytes), (2 * least_bytes, 3 * least_bytes - 1))
    assert is_worth((0, 2 * least_bytes), (4 * least_bytes, 4 * least_bytes + 9)), "on average"
    assert not worth(ReadRequest(NAME, ((0, None),), verify=True), target)
    assert not worth(ReadRequest(NAME, ((0, None),), bypass=True), target)


def test_what_asks_for_no_bytes_is_worth_none() -> None:
    assert not worth(StatRequest(NAME), None)
