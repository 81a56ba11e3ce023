"""`intercepted` says what the cache answered, and apart from that what CacheClient read from S3
because no node could.
"""

from __future__ import annotations

from typing import Any

import cachesvc_client
import pytest

from tests.integration.intercept.conftest import BUCKET, DATA, SMALL, Counted, Place

NOBODY = "127.0.0.1:1"


def reads_of(client: Any) -> None:
    """A small body, a large one in pieces, a HEAD."""
    client.head_object(Bucket=BUCKET, Key="small")  # S3's own: it is the first
    assert client.get_object(Bucket=BUCKET, Key="small")["Body"].read() == SMALL
    body = client.get_object(Bucket=BUCKET, Key="big")["Body"]
    assert b"".join(body.iter_chunks(1 << 20)) == DATA
    assert client.head_object(Bucket=BUCKET, Key="small")["ContentLength"] == len(SMALL)


def test_what_the_nodes_answer_is_answered(place: Place, counted: Counted) -> None:
    place.install()
    reads_of(place.boto())
    assert (counted.answered, counted.direct) == (3, 0)
    assert (counted.answered_bytes, counted.direct_bytes) == (len(SMALL) + len(DATA), 0)


def test_what_s3_gave_because_no_node_could_is_direct(place: Place, counted: Counted) -> None:
    cachesvc_client.install(NOBODY, origin={"endpoint_url": place.origin.url})
    reads_of(place.boto())
    assert (counted.answered_bytes, counted.direct_bytes) == (0, len(SMALL) + len(DATA))
    assert counted.direct >= 2
    assert counted.answered + counted.direct == 3, "a HEAD of a version that is known asks nobody"


def test_aiobotocore_is_counted_alike(place: Place, counted: Counted) -> None:
    cachesvc_client.install(NOBODY, origin={"endpoint_url": place.origin.url})

    async def work(client: Any) -> bytes:
        answer = await client.get_object(Bucket=BUCKET, Key="big")
        async with answer["Body"] as body:
            data: bytes = await body.read()
            return data

    assert place.aio(work) == DATA
    assert (counted.answered, counted.direct, counted.answered_bytes) == (0, 1, 0)
    assert counted.direct_bytes >= len(DATA)


def test_a_body_that_goes_on_from_s3_counts_its_bytes_where_they_came_from(
    place: Place, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.install()
    body = place.boto().get_object(Bucket=BUCKET, Key="big")["Body"]
    first = body.read(10)
    assert (counted.answered, counted.direct_bytes) == (1, 0)
    from_nodes = counted.answered_bytes
    monkeypatch.setattr("cachesvc_client.lane.Lane.ask", _down)
    assert first + body.read() == DATA
    assert (counted.answered, counted.direct, counted.answered_bytes) == (1, 0, from_nodes)
    assert counted.direct_bytes >= len(DATA) - from_nodes


def _down(*_: object) -> None:
    raise cachesvc_client.NodeUnavailable("every node is down")


def test_reads_of_fsspec_are_counted_by_their_client(place: Place, counted: Counted) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    place.install()
    with fsspec.open(f"s3://{BUCKET}/small") as file:
        assert file.read() == SMALL
    assert sum(fsspec.filesystem("s3").client.sources().values()) >= len(SMALL)
    assert (counted.answered, counted.direct) == (0, 0)
