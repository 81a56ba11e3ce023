"""Loaders that take a URL or a file system of fsspec, told `cachesvc://`."""

from __future__ import annotations

from typing import Any

from tests.integration.loaders import contents
from tests.integration.loaders.loader import Loader, Where, digest


def _fs(where: Where) -> Any:
    import fsspec

    return fsspec.filesystem(where.url.partition(":")[0], **where.options)


def _path(where: Where, folder: str) -> str:
    """As a file system takes it, without the protocol."""
    return f"{where.url.partition('://')[2]}/{folder}"


def fsspec(where: Where, folder: str) -> Any:
    import fsspec

    with fsspec.open(f"{where.url}/{folder}/big", **where.options) as file:
        whole = file.read()
    path = f"{_path(where, folder)}/big"
    pieces = _fs(where).cat_ranges([path] * 3, [0, 70_000, -9], [10, 170_000, None])
    return digest(whole), [digest(one) for one in pieces]


def pandas(where: Where, folder: str) -> Any:
    import pandas

    url = f"{where.url}/{folder}/table"
    options = dict(where.options) or None  # pandas takes none for local files
    table = pandas.read_parquet(f"{url}.parquet", storage_options=options)
    lines = pandas.read_csv(f"{url}.csv", storage_options=options)
    return [digest(one.to_csv().encode()) for one in (table, lines)]


def pyarrow(where: Where, folder: str) -> Any:
    import pyarrow.dataset

    found = pyarrow.dataset.dataset(
        _path(where, folder), filesystem=_fs(where), format="parquet", partitioning="hive"
    )
    rows = found.to_table(columns=["number", "name"], filter=pyarrow.dataset.field("part") == 1)
    return digest(repr(rows.sort_by("number").to_pydict()).encode())


def duckdb(where: Where, folder: str) -> Any:
    import duckdb

    query = (
        f"select part, sum(number), min(name) from '{where.url}/{folder}/table.parquet'"
        " group by part order by part"
    )
    with duckdb.connect() as database:
        if where.options:
            database.register_filesystem(_fs(where))
        return database.sql(query).fetchall()


def zarr(where: Where, folder: str) -> Any:
    import zarr

    found = zarr.open_group(
        f"{where.url}/{folder}/some.zarr", mode="r", storage_options=dict(where.options) or None
    )["a"]
    return digest(found[50:1100, 20:720].tobytes())


def dask(where: Where, folder: str) -> Any:
    from dask import compute
    from dask.bytes import read_bytes

    url = f"{where.url}/{folder}/big"
    _, blocks = read_bytes(url, blocksize=1 << 20, sample=False, **where.options)
    return digest(b"".join(compute(*blocks[0], scheduler="threads")))


def polars(where: Where, folder: str) -> Any:
    import polars

    with _fs(where).open(f"{_path(where, folder)}/table.parquet") as file:
        found = polars.read_parquet(file, columns=["number", "name"])
    return digest(found.write_csv().encode())


def safetensors(where: Where, folder: str) -> Any:
    from safetensors.torch import load

    data = _fs(where).cat_file(f"{_path(where, folder)}/model.safetensors")
    return {name: digest(_bits(tensor)) for name, tensor in load(data).items()}


def _bits(tensor: Any) -> Any:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy()


def webdataset(where: Where, folder: str) -> Any:
    import webdataset

    fs = _fs(where)
    webdataset.gopen_schemes[fs.protocol[0]] = lambda url, *_: fs.open(url)
    url = f"{fs.protocol[0]}://{_path(where, folder)}/shard-{{0..1}}.tar"
    found = webdataset.WebDataset(url, shardshuffle=False)
    return [(one["__key__"], digest(one["bin"]), digest(one["txt"])) for one in found]


LOADERS = [
    Loader("fsspec", contents.big, fsspec, ("fsspec",)),
    Loader("pandas", contents.tables, pandas, ("fsspec", "pandas", "pyarrow")),
    Loader("pyarrow", contents.parts, pyarrow, ("fsspec", "pyarrow")),
    Loader("duckdb", contents.tables, duckdb, ("fsspec", "duckdb", "pyarrow")),
    Loader("zarr", contents.array, zarr, ("fsspec", "zarr")),
    Loader("dask", contents.big, dask, ("fsspec", "dask")),
    Loader("polars", contents.tables, polars, ("fsspec", "polars", "pyarrow")),
    Loader("safetensors", contents.weights, safetensors, ("fsspec", "safetensors", "torch")),
    Loader("webdataset", contents.shards, webdataset, ("fsspec", "webdataset")),
]
