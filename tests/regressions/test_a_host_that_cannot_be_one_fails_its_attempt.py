"""An origin whose host can have no address is an origin that failed, whatever is wrong with it.

Story: Python refuses `a..b`, and labels over 63 characters, with a UnicodeError, which is no
OSError: it left the fill thread, and readers were told of a defect instead of the origin.
"""

from __future__ import annotations

import pytest

from cachesvc.core.types import ByteRange
from cachesvc.origin.connections import Connections
from cachesvc.origin.fetch import Result, Transfer
from cachesvc.origin.s3_client import tls_context
from tests.support import version_of


class Nowhere:
    """A sink that nothing lands in."""

    cancelled = False

    @property
    def view(self) -> memoryview:
        raise AssertionError("nothing lands")

    def landed(self, count_bytes: int) -> None:
        raise AssertionError("nothing lands")

    def broke_off(self) -> None:
        raise AssertionError("nothing lands")

    def from_peer(self) -> None:
        raise AssertionError("the object store is no peer")


@pytest.mark.parametrize("host", ["a..b.example.com", "a" * 70 + ".example.com", "bücher.example"])
def test_a_host_that_cannot_be_one_fails_its_attempt(host: str) -> None:
    connections = Connections(1000, 1, tls_context(None))
    transfer = Transfer(version_of(b"12345"), ByteRange(0, 5), Nowhere(), connections, 1000)
    outcome = transfer.attempt(f"http://{host}/bucket/key")
    assert outcome.result is Result.BROKEN
    assert outcome.detail.startswith("Unicode")
