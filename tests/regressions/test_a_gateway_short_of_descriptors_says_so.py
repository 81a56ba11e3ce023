"""The gateway duplicates its client's descriptor to send a body. Where there was none to be had it
found out after the head had left: the client had 200 and no body, and the log a traceback.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.gateway.gate import gateway_over
from tests.support import pattern

DATA = pattern(3 << 20)


@pytest.mark.parametrize("stored", [False, True])
def test_a_gateway_short_of_descriptors_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    for name in ("origin", "node"):
        (tmp_path / name).mkdir()

    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("bucket", "key", DATA)
        with gateway_over(origin.url, tmp_path / "node") as gate:
            if stored:
                assert gate.ask()[2] == DATA
            with monkeypatch.context() as patched:
                patched.setattr(os, "dup", none_left)
                status, fields, text = gate.ask()
            assert status == 503
            assert b"<Code>SlowDown</Code>" in text
            assert b"descriptors" in text
            assert int(fields["content-length"]) == len(text)
            assert gate.count("s3_requests_total", op="GetObject", code="503") == 1
            assert gate.ask()[2] == DATA
        origin.stop()
