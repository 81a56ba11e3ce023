"""Real clients write through the gateway, in every way that they have, and read what they wrote.

What they only read, and what that costs the origin: tests/integration/loaders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.client import Config

from tests.integration.gateway.conftest import DATA
from tests.integration.gateway.gate import Gate, ask, gateway_over
from tests.integration.gateway.test_writing import aws_chunks
from tests.moto_server import running_moto
from tests.support import pattern

BIG = pattern(12 << 20, seed=3)


def client(url: str) -> Any:
    retries = {"total_max_attempts": 1}
    return boto3.client("s3", endpoint_url=url, config=Config(retries=retries))


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Gate]:
    """A gateway before somebody else's S3, with an empty bucket."""
    (tmp_path / "node").mkdir()
    with running_moto() as url:
        assert ask(url, "/moto-api/reset", "POST")[0] == 200
        with gateway_over(url, tmp_path / "node") as started:
            s3 = client(started.url)
            s3.create_bucket(Bucket="bucket")
            s3.close()
            yield started


def test_boto3_writes_in_every_way_and_reads_what_it_wrote(moto: Gate, tmp_path: Path) -> None:
    s3 = client(moto.url)
    source = tmp_path / "source"
    source.write_bytes(BIG)
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    s3.upload_file(str(source), "bucket", "multi", Config=parts, ExtraArgs={"Metadata": {"a": "b"}})
    answer = s3.get_object(Bucket="bucket", Key="multi")
    assert answer["Body"].read() == BIG
    assert answer["Metadata"] == {"a": "b"}
    assert answer["ETag"].endswith('-3"')

    s3.put_object(Bucket="bucket", Key="copied", Body=b"old")
    assert s3.get_object(Bucket="bucket", Key="copied")["Body"].read() == b"old"
    s3.put_object(Bucket="bucket", Key="whole", Body=DATA)
    s3.copy_object(Bucket="bucket", Key="copied", CopySource={"Bucket": "bucket", "Key": "whole"})
    assert s3.get_object(Bucket="bucket", Key="copied")["Body"].read() == DATA

    keys = ["plain", "a&b <c>", "gr\u00fc\u00dfe/x"]
    for key in keys:
        s3.put_object(Bucket="bucket", Key=key, Body=key.encode())
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == key.encode()
    s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": key} for key in keys]})
    for key in keys:
        with pytest.raises(s3.exceptions.NoSuchKey):
            s3.get_object(Bucket="bucket", Key=key)
    s3.delete_object(Bucket="bucket", Key="copied")
    with pytest.raises(s3.exceptions.ClientError, match="404"):
        s3.head_object(Bucket="bucket", Key="copied")
    listed = s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", PaginationConfig={})
    assert [one["Key"] for page in listed for one in page["Contents"]] == ["multi", "whole"]
    s3.close()


def test_checksums_and_metadata_are_those_of_the_origin(moto: Gate) -> None:
    s3 = client(moto.url)
    s3.put_object(
        Bucket="bucket",
        Key="key",
        Body=DATA,
        ContentType="text/plain",
        CacheControl="max-age=60",
        ContentEncoding="identity",
        Metadata={"who": "me"},
        ChecksumAlgorithm="SHA256",
    )
    direct = moto.ask("/bucket/key?versionId=null", headers={"x-amz-checksum-mode": "ENABLED"})[1]
    for _ in range(2):
        full = moto.ask(headers={"x-amz-checksum-mode": "ENABLED"})[1]
        assert full["x-amz-checksum-sha256"] == direct["x-amz-checksum-sha256"]
        assert full["content-type"] == "text/plain"
        assert (full["cache-control"], full["x-amz-meta-who"]) == ("max-age=60", "me")
    plain = moto.ask()[1]
    cut = moto.ask(headers={"x-amz-checksum-mode": "ENABLED", "Range": "bytes=0-9"})[1]
    assert not [name for name in plain.keys() | cut.keys() if name.startswith("x-amz-checksum")]
    assert s3.get_object(Bucket="bucket", Key="key", ChecksumMode="ENABLED")["Body"].read() == DATA
    s3.close()


@pytest.mark.slow
def test_pyarrow_writes_a_table_and_lists_it(moto: Gate) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import fs, parquet

    files = fs.S3FileSystem(
        endpoint_override=moto.url, access_key="a", secret_key="b", region="us-east-1"
    )
    for count in (10, 100_000):
        table = pyarrow.table({"n": list(range(count)), "text": ["x"] * count})
        parquet.write_table(table, "bucket/table.parquet", filesystem=files)
        assert parquet.read_table("bucket/table.parquet", filesystem=files).equals(table)
    found = files.get_file_info(fs.FileSelector("bucket"))
    assert [one.path for one in found] == ["bucket/table.parquet"]


def obstore_of(gate: Gate) -> Any:
    from obstore.store import S3Store

    return S3Store(
        "bucket",
        endpoint=gate.url,
        access_key_id="a",
        secret_access_key="b",
        region="us-east-1",
        client_options={"allow_http": True},
    )


@pytest.mark.slow
def test_obstore_writes_lists_and_deletes(moto: Gate) -> None:
    obstore = pytest.importorskip("obstore")
    store = obstore_of(moto)
    for data in (b"old", b"newer", BIG):
        obstore.put(store, "key", data)
        assert bytes(obstore.get(store, "key").bytes()) == data
    obstore.copy(store, "key", "copied")
    assert [one["path"] for page in obstore.list(store) for one in page] == ["copied", "key"]
    obstore.delete(store, ["key", "copied"])
    with pytest.raises(FileNotFoundError):
        obstore.get(store, "key")


@pytest.mark.parametrize("extension", ["", f";chunk-signature={'0' * 64}"])
@pytest.mark.parametrize("trailer", ["", "x-amz-checksum-crc32:AAAAAA==\r\n"])
def test_many_are_deleted_by_an_aws_chunked_body_and_forgotten(
    moto: Gate, extension: str, trailer: str
) -> None:
    s3 = client(moto.url)
    s3.put_object(Bucket="bucket", Key="key", Body=b"data")
    s3.close()
    assert moto.ask()[2] == b"data"
    document = b"<Delete><Object><Key>key</Key></Object><Object><Key>none</Key></Object></Delete>"
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" if extension else "STREAMING-UNSIGNED-PAYLOAD"
    headers = {
        "x-amz-content-sha256": kind + ("-TRAILER" if trailer or not extension else ""),
        "x-amz-decoded-content-length": str(len(document)),
        "Content-Encoding": "aws-chunked",
    }
    body = aws_chunks(document, 32, extension, trailer)
    status, _, answer = moto.ask("/bucket?delete", "POST", headers, body)
    assert (status, answer.count(b"<Deleted>")) == (200, 2)
    assert moto.ask()[0] == 404
