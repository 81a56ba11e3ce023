"""A node without AWS credentials says so when it starts, to `cachesvc status`, and to programs that
read through its gateway.

Story: it said so in its log at the first read only; the gateway answered 503, which SDKs tried
again for 13 s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from cachesvc.cli import app
from cachesvc.devorigin import DevOrigin
from cachesvc.devorigin.ports import free_ports
from tests.integration.cluster import Cluster, NodeProcess
from tests.support import until

pytestmark = pytest.mark.slow
NO_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
SAID = "no AWS credentials were found on this node: set AWS_ACCESS_KEY_ID"


@dataclass
class Place:
    """s3: a client of the gateway, with the retries of every SDK."""

    node: NodeProcess
    s3: Any


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    work = tmp_path_factory.mktemp("node")
    (work / "origin").mkdir()
    gateway = f"127.0.0.1:{free_ports(1)[0]}"
    options = ("--capacity", "64MiB", "--s3", gateway)
    with (
        DevOrigin(work / "origin") as origin,
        Cluster(work, origin.url, 1, options, NO_CREDENTIALS) as cluster,
    ):
        origin.put("bucket", "key", b"data")
        client = boto3.client("s3", endpoint_url=f"http://{gateway}")
        yield Place(cluster.nodes[0], client)
        client.close()
        assert not origin.requests


def test_its_log_says_it_once_before_anybody_asks(place: Place) -> None:
    until(lambda: SAID in place.node.log(), "the node has warned")
    assert place.node.log().count(SAID) == 1


def test_status_says_it(place: Place) -> None:
    until(lambda: SAID in place.node.log(), "the node has warned")
    found = CliRunner().invoke(app, ["status", "--endpoint", place.node.lane, "--json"])
    assert found.exit_code == 1
    said = json.loads(found.stdout)
    (row,) = said["members"]
    assert (said["healthy"], row["state"]) == (False, "in trouble")
    assert SAID in row["why"]
    assert SAID in found.stderr


@pytest.mark.parametrize(
    ("operation", "parameters", "metric"),
    [
        ("get_object", {"Bucket": "bucket", "Key": "key"}, "GetObject"),
        ("list_objects_v2", {"Bucket": "bucket"}, "ListObjectsV2"),
        ("put_object", {"Bucket": "bucket", "Key": "new", "Body": b"x"}, "PutObject"),
    ],
)
def test_the_gateway_refuses_and_nobody_tries_again(
    place: Place, operation: str, parameters: dict[str, Any], metric: str
) -> None:
    with pytest.raises(ClientError, match=SAID) as refused:
        getattr(place.s3, operation)(**parameters)
    assert refused.value.response["Error"]["Code"] == "AccessDenied"
    assert place.node.metric(f's3_requests_total{{code="403",op="{metric}"') == 1


def test_a_head_is_refused_too(place: Place) -> None:
    with pytest.raises(ClientError, match="403"):
        place.s3.head_object(Bucket="bucket", Key="key")
