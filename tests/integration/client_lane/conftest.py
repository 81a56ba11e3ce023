"""A node that may misbehave, and an honest one behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.integration.client_lane.fake_node import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    with contextlib.ExitStack() as exits:
        yield Pair(exits)
