"""Every snippet of the README's "In your loader" runs, as it stands, in a process of its own."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.integration.cluster import Cluster
from tests.integration.doors.checkpoints import made, numbers

ROOT = Path(__file__).parents[3]
SECTION = (ROOT / "README.md").read_text().split("\n## In your loader\n")[1].split("\n## ")[0]
SNIPPETS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
# A thread of pyarrow that lets go of a Python file, of whatever fsspec file system, while the
# interpreter ends, aborts the process; so it does not wait for that.
ENDED_AT_ONCE = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"
OPTIONAL = ("dask", "duckdb", "fsspec", "numpy", "pandas", "pyarrow", "torch", "zarr")


def needs(snippet: str) -> set[str]:
    """The libraries that it imports, or its door does."""
    found = {name for name in OPTIONAL if re.search(rf"^(import|from) {name}\b", snippet, re.M)}
    if "cachesvc://" in snippet or "install" in snippet:
        found.add("fsspec")
    if "load_state_dict" in snippet or "S3Dataset" in snippet:
        found.add("torch")
    return found | ({"numpy"} if "open_safetensors" in snippet else set())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster that has what the snippets name."""
    work = tmp_path_factory.mktemp("readme")
    (work / "origin").mkdir()
    with DevOrigin(work / "origin") as origin, Cluster(work, origin.url) as cluster:
        fill(origin)
        yield os.environ | {
            "CACHESVC_ENDPOINT": cluster.endpoint,
            "AWS_ENDPOINT_URL": origin.url,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")]),
        }


def fill(origin: DevOrigin) -> None:
    lines = "number,name\n" + "".join(f"{number},row {number}\n" for number in range(1000))
    origin.put("data", "table.csv", lines.encode())
    for number in range(4):
        origin.put("data", f"image-{number:03d}", b"image" * number)
    for number in range(2):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo(f"sample-{number}.txt")
            member.size = 4
            archive.addfile(member, io.BytesIO(b"text"))
        origin.put("data", f"shard-{number}.tar", buffer.getvalue())
    weights = {"embed": numbers(64, 8, 1), "head": numbers(8, 64, 2)}
    origin.put("models", "model.safetensors", made(weights))
    index = '{"weight_map": {"embed": "model.safetensors", "head": "model.safetensors"}}'
    origin.put("models", "model.safetensors.index.json", index.encode())
    if find_spec("pyarrow"):
        import pyarrow
        import pyarrow.parquet

        table, buffer = pyarrow.table({"number": list(range(100))}), io.BytesIO()
        pyarrow.parquet.write_table(table, buffer)
        for key in ("table.parquet", "parts/one.parquet"):
            origin.put("data", key, buffer.getvalue())
    if find_spec("zarr"):
        import zarr

        store: dict[str, zarr.core.buffer.Buffer] = {}
        array = zarr.create_array(zarr.storage.MemoryStore(store), shape=(40,), dtype="i4")
        array[:] = 7
        for key, value in store.items():
            origin.put("data", f"some.zarr/{key}", value.to_bytes())


def test_every_client_has_its_snippet() -> None:
    assert len(SNIPPETS) == 10
    assert {name for one in SNIPPETS for name in needs(one)} == set(OPTIONAL)


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_the_snippet_runs(environment: dict[str, str], snippet: str) -> None:
    missing = sorted(name for name in needs(snippet) if find_spec(name) is None)
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    command = [sys.executable, "-c", snippet + ENDED_AT_ONCE]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
