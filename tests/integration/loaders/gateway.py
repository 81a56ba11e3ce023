"""Loaders that speak S3, told the gateway's address and nothing else."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any
from unittest.mock import patch

from tests.integration.loaders import contents
from tests.integration.loaders.client import tensors_of_safetensors, told_of_torch
from tests.integration.loaders.loader import BUCKET, KEYS, Loader, Where, digest

REGION = "us-east-1"
MEBIBYTE = 1 << 20
STAND_INS = str(Path(__file__).with_name("stand_ins"))
if STAND_INS not in sys.path:
    sys.path.append(STAND_INS)  # the last: what is installed comes first


def boto3(where: Where, folder: str) -> Any:
    import boto3

    s3 = boto3.client("s3", endpoint_url=where.s3)
    return digest(s3.get_object(Bucket=BUCKET, Key=f"{folder}/big")["Body"].read())


def s3transfer(where: Where, folder: str) -> Any:
    import boto3
    from boto3.s3.transfer import TransferConfig

    got = io.BytesIO()
    in_parts = TransferConfig(multipart_threshold=MEBIBYTE, multipart_chunksize=2 * MEBIBYTE)
    s3 = boto3.client("s3", endpoint_url=where.s3)
    s3.download_fileobj(BUCKET, f"{folder}/big", got, Config=in_parts)
    return digest(got.getvalue())


def aiobotocore(where: Where, folder: str) -> Any:
    from aiobotocore.session import get_session

    async def read() -> bytes:
        async with get_session().create_client("s3", endpoint_url=where.s3) as s3:
            name = {"Bucket": BUCKET, "Key": f"{folder}/big"}
            size_bytes = (await s3.head_object(**name))["ContentLength"]

            async def piece(start: int) -> bytes:
                wanted = f"bytes={start}-{start + 3 * MEBIBYTE - 1}"
                answer = await s3.get_object(**name, Range=wanted)
                async with answer["Body"] as body:
                    data: bytes = await body.read()
                    return data

            starts = range(0, size_bytes, 3 * MEBIBYTE)
            return b"".join(await asyncio.gather(*map(piece, starts)))

    return digest(asyncio.run(read()))


def s3fs(where: Where, folder: str) -> Any:
    import s3fs

    fs = s3fs.S3FileSystem(endpoint_url=where.s3)
    (path,) = fs.ls(f"{BUCKET}/{folder}", detail=False)
    with fs.open(path) as file:
        whole = file.read()
    pieces = fs.cat_ranges([path] * 3, [0, 70_000, 8_000_000], [10, 170_000, 9_000_000])
    return digest(whole), [digest(one) for one in pieces]


def pandas(where: Where, folder: str) -> Any:
    import pandas

    url, options = f"s3://{BUCKET}/{folder}/table", {"endpoint_url": where.s3}
    table = pandas.read_parquet(f"{url}.parquet", storage_options=options)
    lines = pandas.read_csv(f"{url}.csv", storage_options=options)
    return [digest(one.to_csv().encode()) for one in (table, lines)]


def pyarrow(where: Where, folder: str) -> Any:
    import pyarrow.dataset
    from pyarrow import fs

    files = fs.S3FileSystem(endpoint_override=where.s3, region=REGION)
    found = pyarrow.dataset.dataset(
        f"{BUCKET}/{folder}", filesystem=files, format="parquet", partitioning="hive"
    )
    rows = found.to_table(columns=["number", "name"], filter=pyarrow.dataset.field("part") == 1)
    with files.open_input_file(f"{BUCKET}/{folder}/part=2/part-0.parquet") as file:
        piece = file.read_at(100_000, 1000)
    return digest(repr(rows.sort_by("number").to_pydict()).encode()), digest(piece)


def _obstore(where: Where) -> Any:
    from obstore.store import S3Store

    return S3Store(
        BUCKET,
        endpoint=where.s3,
        access_key_id="a",
        secret_access_key="b",
        region=REGION,
        client_options={"allow_http": True},
    )


def obstore(where: Where, folder: str) -> Any:
    import obstore

    store, path = _obstore(where), f"{folder}/big"
    whole = obstore.get(store, path).bytes()
    pieces = obstore.get_ranges(store, path, starts=[70_000, 8_000_000], ends=[170_000, 9_000_000])
    return digest(whole), [digest(one) for one in pieces]


def zarr(where: Where, folder: str) -> Any:
    import zarr

    store = zarr.storage.ObjectStore(_obstore(where), read_only=True)
    found = zarr.open_group(store, path=f"{folder}/some.zarr", mode="r")["a"]
    return digest(found[50:1100, 20:720].tobytes())


def polars(where: Where, folder: str) -> Any:
    import polars

    options = {
        "aws_endpoint_url": where.s3, "aws_allow_http": "true", "aws_region": REGION, **KEYS,
    }  # fmt: skip
    found = polars.scan_parquet(
        f"s3://{BUCKET}/{folder}/table.parquet", storage_options=options
    ).filter(polars.col("part") == 1)
    return digest(found.select("number", "name").collect().write_csv().encode())


def duckdb(where: Where, folder: str) -> Any:
    import duckdb

    host = where.s3.removeprefix("http://")
    with duckdb.connect() as database:
        database.execute("LOAD httpfs")
        database.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b', REGION '{REGION}',"
            f" ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false)"
        )
        query = f"select * from 's3://{BUCKET}/{folder}/table.parquet' order by number"
        return digest(repr(database.sql(query).fetchall()).encode())


def without_httpfs() -> str:
    import duckdb

    try:
        with duckdb.connect() as database:
            database.execute("LOAD httpfs")
    except duckdb.Error as error:
        return f"DuckDB's extension httpfs is not installed: {str(error).splitlines()[0]}"
    return ""


def s3torchconnectorclient(where: Where, folder: str) -> Any:
    from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

    client = MountpointS3Client(REGION, endpoint=where.s3, force_path_style=True)
    return digest(b"".join(client.get_object(BUCKET, f"{folder}/big")))


def s3torchconnector(where: Where, folder: str) -> Any:
    from s3torchconnector import S3ClientConfig, S3MapDataset
    from torch.utils.data import DataLoader

    images = S3MapDataset.from_prefix(
        f"s3://{BUCKET}/{folder}/",
        region=REGION,
        endpoint=where.s3,
        transform=lambda one: digest(one.read()),
        s3client_config=S3ClientConfig(force_path_style=True),
    )
    return list(DataLoader(images, batch_size=None))


def webdataset(where: Where, folder: str) -> Any:
    import webdataset

    url = f"pipe:curl -sSf {where.s3}/{BUCKET}/{folder}/shard-{{0..1}}.tar"
    found = webdataset.WebDataset(url, shardshuffle=False)
    return [(one["__key__"], digest(one["bin"]), digest(one["txt"])) for one in found]


def streaming(where: Where, folder: str) -> Any:
    from streaming import StreamingDataset

    remote = f"s3://{BUCKET}/{folder}"
    with TemporaryDirectory() as local, patch.dict(os.environ, S3_ENDPOINT_URL=where.s3):
        with open(Path(gettempdir(), "cachesvc-tests.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # jobs that begin at once take each other's names
            found = StreamingDataset(remote=remote, local=local, batch_size=1, shuffle=False)
        return [digest(found[number]["x"]) for number in range(len(found))]


def runai(where: Where, folder: str) -> Any:
    from runai_model_streamer import SafetensorsStreamer, list_safetensors

    settings = {
        "AWS_ENDPOINT_URL": where.s3,
        "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with patch.dict(os.environ, settings), SafetensorsStreamer() as streamer:
        streamer.stream_files(list_safetensors(f"s3://{BUCKET}/{folder}/"))
        return told_of_torch(dict(streamer.get_tensors()))


def without_streaming() -> str:
    try:
        import streaming  # noqa: F401
    except Exception as error:  # of one of the many libraries that it imports
        return f"mosaicml-streaming cannot be imported: {error}"
    return ""


LOADERS = [
    Loader("boto3", contents.big, boto3, ("boto3",)),
    Loader("s3transfer", contents.big, s3transfer, ("boto3", "s3transfer")),
    Loader("aiobotocore", contents.big, aiobotocore, ("aiobotocore",)),
    Loader("s3fs", contents.big, s3fs, ("s3fs",)),
    Loader("pandas", contents.tables, pandas, ("pandas", "pyarrow", "s3fs")),
    Loader("pyarrow", contents.parts, pyarrow, ("pyarrow",)),
    Loader("obstore", contents.big, obstore, ("obstore",)),
    Loader("zarr", contents.array, zarr, ("zarr", "obstore")),
    Loader("polars", contents.tables, polars, ("polars", "pyarrow")),
    Loader("duckdb", contents.tables, duckdb, ("duckdb", "pyarrow"), unless=without_httpfs),
    Loader(
        "s3torchconnectorclient", contents.big, s3torchconnectorclient, ("s3torchconnectorclient",)
    ),
    Loader("s3torchconnector", contents.big, s3torchconnector, ("s3torchconnector", "torch")),
    Loader(
        "webdataset", contents.shards, webdataset, ("webdataset",),
        unless=lambda: "" if shutil.which("curl") else "curl is not installed",
    ),
    Loader(
        "runai-model-streamer", contents.weights, runai,
        ("torch", "safetensors", "runai_model_streamer", "runai_model_streamer_s3"),
        tensors_of_safetensors,
    ),
    Loader(
        "mosaicml-streaming", contents.samples, streaming, ("streaming",), unless=without_streaming
    ),
]  # fmt: skip
