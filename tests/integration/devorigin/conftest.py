"""A development origin with one object, and a real SDK to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from cachesvc.devorigin import DevOrigin
from tests.integration.devorigin.asking import DATA


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[DevOrigin]:
    with DevOrigin(tmp_path) as running:
        running.put("bucket", "key", DATA)
        yield running


@pytest.fixture
def s3(origin: DevOrigin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client(
        "s3",
        endpoint_url=origin.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()
