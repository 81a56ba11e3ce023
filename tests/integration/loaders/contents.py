"""What stands in the buckets that loaders read: bytes, tables, arrays, archives, weights.

All of it is made of numbers and fixed seeds, and is the same in every process.
"""

from __future__ import annotations

import io
import tarfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.integration.doors.checkpoints import made, numbers
from tests.support import pattern

ROWS = 200_000


@cache
def big() -> dict[str, bytes]:
    """One object of two blocks, the second one odd."""
    return {"big": pattern((9 << 20) + 12_345, 11)}


@cache
def table() -> Any:
    import pyarrow

    return pyarrow.table(
        {
            "number": list(range(ROWS)),
            "part": [number % 3 for number in range(ROWS)],
            "name": [f"row {number * 7919 % ROWS}" for number in range(ROWS)],
        }
    )


@cache
def tables() -> dict[str, bytes]:
    """A table in one file of Parquet, and the beginning of it as lines."""
    import pyarrow.csv
    import pyarrow.parquet

    parquet, lines = io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(table(), parquet, row_group_size=20_000)
    pyarrow.csv.write_csv(table().slice(0, 5000), lines)
    return {"table.parquet": parquet.getvalue(), "table.csv": lines.getvalue()}


@cache
def parts() -> dict[str, bytes]:
    """The same table in partitions, as hive names them."""
    import pyarrow.dataset

    with TemporaryDirectory() as folder:
        pyarrow.dataset.write_dataset(
            table(), folder, format="parquet", partitioning=["part"], partitioning_flavor="hive"
        )
        return files_of(Path(folder))


@cache
def array() -> dict[str, bytes]:
    """A group of zarr with one array in chunks."""
    import numpy
    import zarr

    memory: dict[str, Any] = {}
    numbered: Any = numpy.arange(1200 * 800, dtype="i4").reshape(1200, 800)
    zarr.create_array(zarr.storage.MemoryStore(memory), name="a", data=numbered, chunks=(400, 200))
    return {f"some.zarr/{key}": value.to_bytes() for key, value in memory.items()}


@cache
def shards() -> dict[str, bytes]:
    """Two tar archives in webdataset's layout."""
    found = {}
    for number in range(2):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for sample in range(30):
                for extension in ("bin", "txt"):
                    content = pattern(50_000 + sample, number * 100 + sample)
                    member = tarfile.TarInfo(f"{number:03d}{sample:03d}.{extension}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        found[f"shard-{number}.tar"] = buffer.getvalue()
    return found


@cache
def weights() -> dict[str, bytes]:
    """A checkpoint: integers, and halves of any bits, NaNs among them."""
    tensors = {
        "embed": numbers(2048, 512, 1),
        "head": ("BF16", [512, 1024], pattern(512 * 1024 * 2, 2)),
        "norm": ("F16", [4096], pattern(4096 * 2, 3)),
    }
    return {"model.safetensors": made(tensors)}


@cache
def samples() -> dict[str, bytes]:
    """A dataset in MosaicML's own format, as its writer makes it."""
    from streaming import MDSWriter

    with TemporaryDirectory() as folder:
        with MDSWriter(out=folder, columns={"x": "bytes"}, size_limit=2 << 20) as writer:
            for number in range(60):
                writer.write({"x": pattern(100_000, number)})
        return files_of(Path(folder))


def files_of(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
