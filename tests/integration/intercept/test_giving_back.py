"""`uninstall` reaches every client that was hooked, and `install` again too: also those that
`gc.freeze` hides, as programs that fork many children do, and beside clients that are half made.
"""

from __future__ import annotations

import gc

import cachesvc_client
import pytest
from botocore.client import BaseClient
from botocore.session import Session

from tests.integration.intercept.conftest import BUCKET, SMALL, Counted, Place


def test_frozen_clients_are_given_back_and_taken_again(place: Place, counted: Counted) -> None:
    def read() -> int:
        assert client.get_object(Bucket=BUCKET, Key="small")["Body"].read() == SMALL
        return int(counted.answered)

    place.install()
    client = place.boto()
    gc.freeze()
    try:
        assert read() == 1
        place.install(buckets=["elsewhere"])
        assert (read(), counted.passed("bucket")) == (1, 1)
        place.install()
        assert read() == 2
        cachesvc_client.uninstall()
        assert read() == 2
    finally:
        gc.unfreeze()


def test_an_interceptor_that_was_left_behind_does_nothing(
    place: Place, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = place.boto()
    place.install()
    with monkeypatch.context() as patch:
        patch.setattr(client.meta.events, "unregister", lambda *_, **__: None)
        cachesvc_client.uninstall()
    assert client.get_object(Bucket=BUCKET, Key="small")["Body"].read() == SMALL
    client.put_object(Bucket=BUCKET, Key="left-behind", Body=b"")
    assert (counted.answered, counted.faults) == (0, 0)


def test_what_is_half_made_keeps_nobody_else_hooked(place: Place) -> None:
    place.install()
    halves = [BaseClient.__new__(BaseClient), Session.__new__(Session)]
    client = place.boto()
    counted = Counted()
    cachesvc_client.uninstall()
    place.install()
    cachesvc_client.uninstall()
    assert client.get_object(Bucket=BUCKET, Key="small")["Body"].read() == SMALL
    assert counted.answered == 0
    del halves
