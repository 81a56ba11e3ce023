"""Bug: a block file that could not be opened once more, to be passed to a client of the same host,
took its device out of use whatever the reason: without /proc one mapped object emptied the cache.
One for which there was no descriptor sent its clients to the origin.
"""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from cachesvc_client import CacheClient

from cachesvc import passing
from cachesvc.lane import BARRED_S
from cachesvc.pins import Pin
from tests.integration.inprocess import RawClient, running
from tests.integration.lane.sample import DATA
from tests.support import NAME, Clock

pytestmark = pytest.mark.usefixtures("copied_from_files")

URI = str(NAME)
NO_ORIGIN = {"endpoint_url": "http://127.0.0.1:1", "anonymous": True}


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EMFILE])
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
        clock = Clock()
        monkeypatch.setattr("cachesvc.lane.time", SimpleNamespace(monotonic=clock))
        with CacheClient(f"unix://{tmp_path}/node.sock", origin=NO_ORIGIN) as client:
            with client.map(URI) as region:
                assert region[:] == DATA
            reopened = passing._reopened
            monkeypatch.setattr(passing, "_reopened", barred)
            for _ in range(2):
                with client.map(URI) as region:
                    assert region[:] == DATA
                assert client.read(URI) == DATA
            assert "direct" not in client.sources()
            clock.now += BARRED_S
            passed_count = 0

            def counted(pin: Pin) -> int:
                nonlocal passed_count
                passed_count += 1
                return reopened(pin)

            monkeypatch.setattr(passing, "_reopened", counted)
            with client.map(URI) as region:
                assert region[:] == DATA
            assert passed_count > 0, "files are passed again"
        assert node.store.stored_count == stored_count > 0
        assert not node.store.devices[0].failure
