"""What interception is for: no second GET at the origin; and what it must never do."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import cachesvc_client
import pytest
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError, ResponseStreamingError
from cachesvc_client.client import CacheClient
from cachesvc_client.intercept import answer as answer_module
from cachesvc_client.pinned import PinnedObject
from urllib3.response import HTTPResponse

from cachesvc.devorigin import Fault
from tests.integration.cluster import Cluster
from tests.integration.intercept.conftest import BUCKET, DATA, SMALL, Counted, Place
from tests.support import pattern


def read(client: Any, key: str = "small", **options: Any) -> bytes:
    return bytes(client.get_object(Bucket=BUCKET, Key=key, **options)["Body"].read())


def test_a_second_read_asks_the_origin_for_nothing(place: Place, counted: Counted) -> None:
    place.origin.put(BUCKET, "second", DATA)
    place.install()
    client = place.boto()
    assert read(client, "second") == DATA
    before = len(place.origin.requests)
    assert read(client, "second") == DATA
    assert read(place.boto(), "second", Range="bytes=77-9000000") == DATA[77:9_000_001]
    assert client.head_object(Bucket=BUCKET, Key="second")["ContentLength"] == len(DATA)
    assert len(place.origin.requests) == before
    assert (counted.answered, counted.faults) == (4, 0)


def test_clients_and_resources_that_were_there_before_are_intercepted(
    place: Place, counted: Counted
) -> None:
    client, session = place.boto(), boto3.Session()
    resource = boto3.resource("s3", endpoint_url=place.origin.url)
    place.install()
    place.install()
    assert read(client) == SMALL
    assert resource.Object(BUCKET, "small").get()["Body"].read() == SMALL
    assert read(session.client("s3", endpoint_url=place.origin.url)) == SMALL
    assert counted.answered == 3
    cachesvc_client.uninstall()
    cachesvc_client.uninstall()
    for given_back in (client, session.client("s3", endpoint_url=place.origin.url), place.boto()):
        assert read(given_back) == SMALL
    assert counted.answered == 3


def test_a_body_that_is_being_read_goes_on_after_uninstall(place: Place) -> None:
    place.install()
    body = place.boto().get_object(Bucket=BUCKET, Key="big")["Body"]
    first = body.read(10)
    cachesvc_client.uninstall()
    assert first + body.read() == DATA


def test_s3transfer_downloads_ranges_in_parallel_from_the_cache(
    place: Place, counted: Counted, tmp_path: Path
) -> None:
    place.origin.put(BUCKET, "download", DATA)
    place.install()
    client = place.boto()
    config = TransferConfig(multipart_threshold=1 << 20, multipart_chunksize=3 << 20)
    for number in range(2):
        client.download_file(BUCKET, "download", str(tmp_path / f"{number}"), Config=config)
        assert (tmp_path / f"{number}").read_bytes() == DATA
    gets = place.asked("GetObject")
    client.download_fileobj(BUCKET, "download", into := io.BytesIO(), Config=config)
    assert into.getvalue() == DATA
    assert place.asked("GetObject") == gets
    assert counted.answered >= 20
    assert counted.faults == 0


def test_what_the_program_writes_it_reads(place: Place, counted: Counted) -> None:
    """S3 shows a write to whoever reads after it; so must we, though versions are believed for
    a while."""
    place.install()
    client = place.boto()
    config = TransferConfig(multipart_threshold=5 << 20)
    for number in range(3):
        data = pattern(50_000, number)
        client.put_object(Bucket=BUCKET, Key="written", Body=data)
        assert read(client, "written") == data
        assert read(client, "written") == data
    client.upload_fileobj(io.BytesIO(SMALL), BUCKET, "written", Config=config)
    assert read(client, "written") == SMALL
    client.delete_object(Bucket=BUCKET, Key="written")
    with pytest.raises(ClientError, match="NoSuchKey"):
        read(client, "written")
    assert (counted.answered, counted.faults) == (7, 0)

    async def by_aio(client: Any) -> list[bytes]:
        found = []
        for data in (b"one", b"two", b"three"):
            await client.put_object(Bucket=BUCKET, Key="written", Body=data)
            for _ in range(2):
                async with (await client.get_object(Bucket=BUCKET, Key="written"))["Body"] as body:
                    found.append(await body.read())
        return found

    assert place.aio(by_aio) == [b"one"] * 2 + [b"two"] * 2 + [b"three"] * 2
    assert (counted.answered, counted.faults) == (13, 0)


def test_a_write_of_many_objects_asks_s3_for_none_of_them(place: Place, counted: Counted) -> None:
    """The origin has no DeleteObjects; a write that failed may have happened all the same."""
    keys = [f"many/{number}" for number in range(20)]
    listed = {"Bucket": BUCKET, "Delete": {"Objects": [{"Key": key} for key in keys]}}
    place.install()
    client = place.boto()

    def by_boto3() -> None:
        with pytest.raises(ClientError, match="NotImplemented"):
            client.delete_objects(**listed)

    async def by_aio(client: Any) -> None:
        with pytest.raises(ClientError, match="NotImplemented"):
            await client.delete_objects(**listed)

    writes: list[Callable[[], object]] = [by_boto3, lambda: place.aio(by_aio)]
    for number, write in enumerate(writes):
        for key in keys:
            place.origin.put(BUCKET, key, b"old %d" % number)
        write()
        assert [read(client, key) for key in keys] == [b"old %d" % number] * 20
        for key in keys:
            place.origin.put(BUCKET, key, b"new %d" % number)
        before = place.asked("HeadObject", "GetObject")
        write()
        assert place.asked("HeadObject", "GetObject") == before
        assert [read(client, key) for key in keys] == [b"new %d" % number] * 20
    assert (counted.answered, counted.passed("version"), counted.faults) == (80, 0, 0)


def test_an_object_overwritten_elsewhere_is_whole_and_never_a_mixture(place: Place) -> None:
    old, new = pattern(20_000_000, 1), pattern(20_000_000, 2)
    place.origin.put(BUCKET, "overwritten", old)
    place.install()
    client = place.boto()
    body = client.get_object(Bucket=BUCKET, Key="overwritten")["Body"]
    first = body.read(100_000)
    place.origin.put(BUCKET, "overwritten", new)
    try:
        whole = first + body.read()
    except ResponseStreamingError as error:
        assert "S3 does not give it" in str(error)  # noqa: PT017 - either will do
    else:
        assert whole == old
    assert read(client, "overwritten") in (old, new), "one version, at most `revalidate` old"
    assert read(client, "overwritten", Range="bytes=5-9999999") in (
        old[5:10_000_000],
        new[5:10_000_000],
    )


def test_a_version_that_s3_no_longer_has_ends_a_body_as_a_cut_connection_does(
    place: Place, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    place.origin.put(BUCKET, "gone", DATA)
    place.install()
    body = place.boto().get_object(Bucket=BUCKET, Key="gone")["Body"]
    assert body.read(10) == DATA[:10]
    place.origin.put(BUCKET, "gone", SMALL)
    lose_everything(monkeypatch)
    with pytest.raises(ResponseStreamingError, match=r"gone: the cache lost the rest of version"):
        body.read()
    assert counted.rescued == 1


def lose_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any) -> bytes:
        raise cachesvc_client.NodeUnavailable("nobody is there")

    monkeypatch.setattr(PinnedObject, "read", lost)


def test_a_body_that_the_cache_loses_goes_on_from_s3(
    place: Place, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    place.install()
    body = place.boto().get_object(Bucket=BUCKET, Key="big", Range="bytes=9-")["Body"]
    pieces = [body.read(300_000)]
    lose_everything(monkeypatch)
    pieces += [*body.iter_chunks(1_000_000)]
    assert b"".join(pieces) == DATA[9:]

    async def by_aio(client: Any) -> bytes:
        monkeypatch.undo()
        answer = await client.get_object(Bucket=BUCKET, Key="big")
        async with answer["Body"] as stream:
            first = await stream.read(300_000)
            lose_everything(monkeypatch)
            return bytes(first + await stream.read())

    assert place.aio(by_aio) == DATA
    assert (counted.rescued, counted.faults) == (2, 0)
    assert place.origin.requests[-1].if_match is not None


def test_a_defect_of_ours_is_logged_once_and_s3_answers(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    counted: Counted,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class DefectInTheTest(Exception):
        pass

    def broken(*_: Any, **__: Any) -> Any:
        raise DefectInTheTest

    place.install()
    client = place.boto()
    places: list[tuple[Any, str]] = [(CacheClient, "begin"), (answer_module, "head_of")]
    for owner, name in places:
        monkeypatch.setattr(owner, name, broken)
        assert read(client) == SMALL
        assert read(client, Range="bytes=1-2") == SMALL[1:3]
        monkeypatch.undo()

    async def by_aio(client: Any) -> bytes:
        monkeypatch.setattr(CacheClient, "begin", broken)
        async with (await client.get_object(Bucket=BUCKET, Key="small"))["Body"] as body:
            return bytes(await body.read())

    assert place.aio(by_aio) == SMALL
    monkeypatch.undo()
    body = client.get_object(Bucket=BUCKET, Key="big")["Body"]
    monkeypatch.setattr(PinnedObject, "read", broken)
    assert body.read() == DATA
    assert counted.faults == 6
    assert caplog.text.count("interception failed, S3 is read instead") == 1


def test_who_may_not_read_at_s3_reads_nothing_from_the_cache(
    place: Place, counted: Counted
) -> None:
    """The origin refuses what this client signs; the cache has the bytes all the same."""
    place.origin.put(BUCKET, "secret", SMALL)
    place.install()
    assert read(place.boto(), "secret") == SMALL
    stranger = place.boto(aws_access_key_id="stranger", aws_secret_access_key="x")
    refusal = AWSResponse(f"{place.origin.url}/secret", 403, {}, HTTPResponse(io.BytesIO()))
    stranger.meta.events.register("before-send.s3.HeadObject", lambda **_: refusal)
    before = place.asked("GetObject")
    assert read(stranger, "secret") == SMALL, "by the origin, which here lets everybody in"
    assert place.asked("GetObject") == before + 1
    assert (counted.answered, counted.passed("refused")) == (1, 1)
    unsigned = place.boto(config=Config(signature_version=UNSIGNED))
    heads = place.asked("HeadObject")
    assert read(unsigned, "secret") == SMALL
    assert place.asked("HeadObject") == heads + 1, "S3 was asked whether nobody may read it"
    assert (counted.answered, counted.faults) == (2, 0)


def test_other_endpoints_and_other_buckets_are_left_alone(place: Place, counted: Counted) -> None:
    place.install(buckets=["models", "dat?/lin", "s3://other/"])
    client = place.boto()
    assert read(client) == SMALL
    assert counted.answered == 0
    assert counted.passed("bucket") == 1
    assert read(client, "lines")
    assert counted.answered == 1
    elsewhere = boto3.client("s3", endpoint_url=place.origin.url.replace("127.0.0.1", "localhost"))
    assert read(elsewhere, "lines")
    assert counted.passed("endpoint") == 1


def test_threads_share_it(place: Place, counted: Counted) -> None:
    place.install()
    client = place.boto()
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda n: read(client, "big", Range=f"bytes={n}-{n + 99}"), range(64))
        )
    assert found == [DATA[n : n + 100] for n in range(64)]
    assert (counted.answered, counted.faults) == (64, 0)


def test_the_programs_own_hooks_and_retries_work_as_before(place: Place, counted: Counted) -> None:
    client = place.boto()
    place.install()
    seen: list[str] = []
    for event in ("before-send", "response-received", "before-parse", "after-call"):
        client.meta.events.register(
            f"{event}.s3.GetObject",
            lambda event_name, **_: seen.append(event_name),
            unique_id=event,
        )
    assert read(client) == SMALL
    events = [f"{event}.s3.GetObject" for event in ("before-send", "before-parse")]
    assert seen == [*events, "response-received.s3.GetObject", "after-call.s3.GetObject"]
    place.origin.faults = [Fault("503", "*", "first-time", count=2)]
    try:
        place.origin.put(BUCKET, "first-time", SMALL)
        answer = client.get_object(Bucket=BUCKET, Key="first-time")
        assert answer["Body"].read() == SMALL
    finally:
        place.origin.faults = []
    assert counted.faults == 0


def test_an_s3_that_fails_is_not_asked_more_often_for_each_retry(place: Place) -> None:
    def requests(client: Any) -> list[str]:
        before = len(place.origin.requests)
        with pytest.raises(ClientError, match="SlowDown"):
            read(client, "failing")
        return [one.operation for one in place.origin.requests[before:]]

    place.origin.put(BUCKET, "failing", SMALL)
    retries = Config(retries={"mode": "standard", "total_max_attempts": 3})
    plain = place.boto(config=retries)
    place.origin.faults = [Fault("503", "*", "failing", count=1000)]
    try:
        assert requests(plain) == ["GetObject"] * 3
        place.install()
        assert requests(place.boto(config=retries)) == ["HeadObject"] * 3 + ["GetObject"] * 3
    finally:
        place.origin.faults = []


@pytest.mark.slow
def test_nodes_killed_in_the_middle_of_a_body_are_not_noticed(
    place: Place, tmp_path: Path, counted: Counted
) -> None:
    with Cluster(tmp_path, place.origin.url, 2) as cluster:
        origin = {"endpoint_url": place.origin.url}
        cachesvc_client.install(cluster.endpoint, origin=origin)
        client = place.boto()
        bodies = [client.get_object(Bucket=BUCKET, Key="big")["Body"] for _ in range(2)]
        first = [body.read(100_000) for body in bodies]
        cluster.nodes[0].kill()
        assert first[0] + bodies[0].read() == DATA
        cluster.nodes[1].kill()
        assert first[1] + b"".join(bodies[1].iter_chunks(1 << 20)) == DATA
        assert read(client) == SMALL, "of nodes that are all gone"
    assert counted.faults == 0


def worker(key: str, url: str, pipe: Any) -> None:
    client = boto3.client("s3", endpoint_url=url)
    pipe.send(read(client, key) == DATA)
    pipe.close()


@pytest.mark.slow
def test_many_processes_that_read_a_cold_object_fetch_it_once(place: Place) -> None:
    place.origin.put(BUCKET, "stampede", DATA)
    before = place.origin.requests[-1].started_at
    place.install()
    context = multiprocessing.get_context("fork")
    pipes, children = [], []
    for _ in range(8):
        ours, theirs = context.Pipe(False)
        child = context.Process(target=worker, args=("stampede", place.origin.url, theirs))
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    assert [pipe.recv() for pipe in pipes] == [True] * 8
    for child in children:
        child.join()
    fetched = sum(
        one.body_bytes
        for one in place.origin.requests
        if one.operation == "GetObject" and one.started_at > before
    )
    assert fetched == len(DATA)
