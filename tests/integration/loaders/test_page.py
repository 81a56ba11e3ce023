"""Every snippet of docs/in-your-loader.md, and of README's section of that name, runs, as it
stands, in a process of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.loaders import contents
from tests.integration.loaders.conftest import Place
from tests.integration.loaders.gateway import STAND_INS, without_streaming

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
SECTION = README.partition("\n## In your loader\n")[2].partition("\n## ")[0]
PAGE = (ROOT / "docs" / "in-your-loader.md").read_text() + SECTION
SAMPLE, *SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
GATEWAY = "http://127.0.0.1:7072"  # of the page
FOLDER = "/tmp/mds"  # of the page
# A thread of pyarrow that lets go of a Python file, of whatever fsspec file system, while the
# interpreter ends, aborts the process; so it does not wait for that; but streaming removes its
# shared memory then.
ENDED_AT_ONCE = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"
OPTIONAL = (
    "aiobotocore", "boto3", "dask", "duckdb", "fsspec", "numpy", "obstore", "pandas", "polars",
    "pyarrow", "runai_model_streamer", "s3fs", "s3torchconnector", "safetensors", "streaming",
    "torch", "webdataset", "zarr",
)  # fmt: skip


def needs(snippet: str) -> set[str]:
    """The libraries that it imports, or its door does."""
    found = {name for name in OPTIONAL if re.search(rf"^(import|from) {name}\b", snippet, re.M)}
    if "cachesvc://" in snippet or "install" in snippet:
        found.add("fsspec")
    if re.search(r"load_state_dict|S3Dataset|safetensors\.torch", snippet):
        found.add("torch")
    return found | ({"numpy"} if "open_safetensors" in snippet else set())


@pytest.fixture(scope="module")
def filled(place: Place) -> Place:
    """The origin has what the snippets name: the page's own block has put it there."""
    skip_without(needs(SAMPLE) | {"pyarrow"})
    done = run(SAMPLE, place)
    assert (done.returncode, done.stderr) == (0, "")
    if not without_streaming():
        for key, data in contents.samples().items():
            place.origin.put("data", f"mds/{key}", data)
    return place


def skip_without(libraries: set[str]) -> None:
    missing = sorted(name for name in libraries if find_spec(name) is None)
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")


def environment(place: Place) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "client"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "CACHESVC_ENDPOINT": place.cluster.endpoint,
        "AWS_ENDPOINT_URL": place.origin.url,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def run(code: str, place: Place) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(place), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def test_readme_has_a_snippet() -> None:
    assert "```python" in SECTION


def test_every_client_has_its_snippet() -> None:
    assert {name for one in SNIPPETS for name in needs(one)} == set(OPTIONAL)


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_the_snippet_runs_and_reads_through_the_cache(
    filled: Place, snippet: str, tmp_path: Path
) -> None:
    skip_without(needs(snippet))
    if "streaming" in needs(snippet) and (why := without_streaming()):
        pytest.skip(why)
    code = snippet.replace(GATEWAY, filled.cached.s3).replace(FOLDER, str(tmp_path / "mds"))
    if "streaming" in needs(snippet):
        code = f"import sys\nsys.path.append({STAND_INS!r})\n{code}"
    else:
        code += ENDED_AT_ONCE
    before = filled.asked()
    done = run(code, filled)
    assert (done.returncode, done.stderr) == (0, "")
    assert filled.asked() > before
