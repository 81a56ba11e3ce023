"""Programs that users have, reading through cachesvc:// and s3://: the same data as from files, a
second time without the origin, and cold by eight processes at once for the price of one.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cachesvc_client
import pytest

from tests.integration.fs.conftest import BUCKET, Place
from tests.support import pattern

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

ROWS = 200_000


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


def table() -> Any:
    pyarrow = library("pyarrow")
    return pyarrow.table(
        {
            "number": list(range(ROWS)),
            "part": [number % 3 for number in range(ROWS)],
            "name": [f"row {number * 7919 % ROWS}" for number in range(ROWS)],
        }
    )


def put_table(place: Place, key: str, **options: Any) -> Any:
    parquet = library("pyarrow.parquet")
    buffer, found = io.BytesIO(), table()
    parquet.write_table(found, buffer, row_group_size=20_000, **options)
    place.origin.put(BUCKET, key, buffer.getvalue())
    return found


def twice(place: Place, read: Callable[[], Any]) -> list[Any]:
    """What is read twice; the second time not from the origin."""
    first = read()
    before = place.origin_reads()
    assert before
    second = read()
    assert place.origin_reads() == before, "the second read went to the origin"
    return [first, second]


def test_pandas_reads_parquet_and_csv(place: Place) -> None:
    pandas = library("pandas")
    wanted = put_table(place, "pandas.parquet").to_pandas()
    place.origin.put(BUCKET, "pandas.csv", wanted.head(5000).to_csv(index=False).encode())
    url = f"cachesvc://{BUCKET}/pandas"
    for found in twice(
        place, lambda: pandas.read_parquet(url + ".parquet", storage_options=place.options)
    ):
        assert found.equals(wanted)
    for found in twice(place, lambda: pandas.read_csv(url + ".csv", storage_options=place.options)):
        assert found.equals(wanted.head(5000))
    cachesvc_client.install(**place.options)
    try:
        found = pandas.read_csv(f"s3://{BUCKET}/pandas.csv")
    finally:
        cachesvc_client.uninstall()
    assert found.equals(wanted.head(5000))


def test_pyarrow_reads_a_dataset_of_partitions(place: Place, tmp_path: Path) -> None:
    dataset = library("pyarrow.dataset")
    wanted = table()
    dataset.write_dataset(
        wanted, tmp_path, format="parquet", partitioning=["part"], partitioning_flavor="hive"
    )
    for path in sorted(tmp_path.rglob("*.parquet")):
        place.origin.put(BUCKET, f"set/{path.relative_to(tmp_path)}", path.read_bytes())
    fs = place.fs()

    def read() -> Any:
        found = dataset.dataset(
            f"{BUCKET}/set", filesystem=fs, format="parquet", partitioning="hive"
        )
        return found.to_table(columns=["number", "name"], filter=dataset.field("part") == 1)

    rows = wanted.filter(dataset.field("part") == 1).select(["number", "name"])
    for found in twice(place, read):
        assert found.sort_by("number").equals(rows)
    fs.client.close()


def test_pyarrow_reads_only_the_columns_that_are_wanted(place: Place) -> None:
    parquet = library("pyarrow.parquet")
    wanted = put_table(place, "columns.parquet", compression="none", use_dictionary=False)
    fs = place.fs()
    with fs.open(f"{BUCKET}/columns.parquet") as file:
        assert parquet.read_table(file, columns=["part"]).equals(wanted.select(["part"]))
        assert file.cache.total_requested_bytes < file.size / 2
    fs.client.close()


def test_zarr_reads_and_writes_arrays(place: Place) -> None:
    zarr, numpy = library("zarr"), library("numpy")
    wanted = numpy.arange(300 * 200, dtype="i4").reshape(300, 200)
    memory: dict[str, Any] = {}
    store = zarr.storage.MemoryStore(memory)
    zarr.create_array(store, name="a", data=wanted, chunks=(100, 50))
    for key, value in memory.items():
        place.origin.put(BUCKET, f"some.zarr/{key}", value.to_bytes())

    def read() -> Any:
        group = zarr.open_group(
            f"cachesvc://{BUCKET}/some.zarr", mode="r", storage_options=place.options
        )
        return group["a"][50:250, 20:120]

    for found in twice(place, read):
        assert (found == wanted[50:250, 20:120]).all()


def test_duckdb_reads_parquet_by_a_registered_file_system(place: Place) -> None:
    duckdb = library("duckdb")
    wanted = put_table(place, "duck.parquet")
    fs = place.fs()
    with duckdb.connect() as database:
        database.register_filesystem(fs)
        query = (
            "select part, sum(number), min(name) from"
            f" 'cachesvc://{BUCKET}/duck.parquet' group by part order by part"
        )
        for found in twice(place, lambda: database.sql(query).fetchall()):
            groups = wanted.group_by("part").aggregate([("number", "sum"), ("name", "min")])
            rows = groups.sort_by("part").to_pylist()
            assert found == [(r["part"], r["number_sum"], r["name_min"]) for r in rows]
    fs.client.close()


def test_dask_reads_bytes_in_blocks(place: Place) -> None:
    read_bytes = library("dask.bytes").read_bytes
    compute = library("dask").compute
    data = pattern(3_000_001, 8)
    place.origin.put(BUCKET, "dask", data)

    def read() -> bytes:
        _, blocks = read_bytes(f"cachesvc://{BUCKET}/dask", blocksize=1 << 20, **place.options)
        (pieces,) = compute(*blocks, scheduler="threads")
        return b"".join(pieces[0] if isinstance(pieces[0], list) else pieces)

    assert twice(place, read)[1][: 1 << 10] == data[:1024]


def _digest(options: dict[str, Any]) -> int:
    import zlib

    with fsspec.open(f"cachesvc://{BUCKET}/herd", **options) as file:
        return zlib.crc32(file.read())


@pytest.mark.slow
def test_eight_processes_read_a_cold_object_for_the_price_of_one(place: Place) -> None:
    import zlib

    data = pattern(12 << 20, 11)
    place.origin.put(BUCKET, "herd", data)
    place.origin.clear_log()
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        found = pool.map(_digest, [place.options] * 8, chunksize=1)
    assert found == [zlib.crc32(data)] * 8
    fetched_bytes = sum(
        one.body_bytes for one in place.origin.requests if one.operation == "GetObject"
    )
    assert fetched_bytes == len(data)
