"""Bug: a block file that could not be opened once more, to be passed to a client of the same host,
took its device out of use whatever the reason: without /proc one mapped object emptied the cache.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from cachesvc_client import CacheClient

from cachesvc import passing
from cachesvc.pins import Pin
from tests.integration.inprocess import RawClient, running
from tests.integration.lane.sample import DATA
from tests.support import NAME

URI = str(NAME)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_bytes_are_sent_and_the_device_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def barred(pin: Pin) -> int:
        raise passing.Unopened(pin, OSError(number, "as told"))

    with running(tmp_path / "data", unix=tmp_path / "node.sock") as node:
        node.put(DATA)
        with RawClient(node).greeted() as tcp:
            tcp.read()
        stored_count = node.store.stored_count
        with CacheClient(f"unix://{tmp_path}/node.sock") as client:
            with client.map(URI) as region:
                assert region[:] == DATA
            monkeypatch.setattr(passing, "_reopened", barred)
            for _ in range(2):
                with client.map(URI) as region:
                    assert region[:] == DATA
                assert client.read(URI) == DATA
        assert node.store.stored_count == stored_count > 0
        assert not node.store.devices[0].failure
