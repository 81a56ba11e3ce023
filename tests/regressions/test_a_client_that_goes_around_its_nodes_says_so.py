"""Bug: a client whose nodes could not answer read S3 without a word: a mistyped endpoint meant
no cache, and nobody noticed.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from cachesvc_client import CacheClient

from cachesvc.devorigin import DevOrigin

NOBODY = "127.0.0.1:1"


def test_a_client_that_goes_around_its_nodes_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with DevOrigin(tmp_path) as origin:
        origin.put("b", "k", b"bytes")
        settings = {"endpoint_url": origin.url, "anonymous": True}
        with CacheClient(NOBODY, origin=settings) as client:
            with caplog.at_level(logging.WARNING, "cachesvc_client"):
                assert [client.read("s3://b/k") for _ in range(3)] == [b"bytes"] * 3
            (record,) = caplog.records  # once, and not for every read
            assert NOBODY in record.getMessage()


def test_an_endpoint_with_white_space_is_refused() -> None:
    with pytest.raises(ValueError, match="white space"):
        CacheClient("bad endpoint")
