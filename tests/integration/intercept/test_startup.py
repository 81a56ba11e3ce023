"""CACHESVC_INTERCEPT=1: a program that knows nothing of the cache reads it; and every process that
such a program starts.

Story: a fresh virtual environment gets `cachesvc.pth` and the paths of the tree, and runs scripts.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

import boto3
import cachesvc_client
import pytest
from cachesvc_client import intercepted

from tests.integration.intercept.conftest import BUCKET, DATA, Counted, Place

ROOT = Path(__file__).parents[3]
PTH = ROOT / "packing" / "cachesvc.pth"
SCRIPT = f"""
import sys
import boto3

if __name__ == "__main__":
    client = boto3.client("s3", endpoint_url=sys.argv[1])
    sys.stdout.buffer.write(client.get_object(Bucket="{BUCKET}", Key="small")["Body"].read())
"""
COUNTS = """
import atexit, sys

def tell():
    module = sys.modules.get("cachesvc_client")
    sys.stderr.write(str(module and module.intercepted().answered))

atexit.register(tell)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the .pth file, as an installed package would bring it."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    paths = [str(ROOT), str(ROOT / "client"), sysconfig.get_path("purelib")]
    (site / "a.pth").write_text("".join(f"{path}\n" for path in paths))
    (site / PTH.name).write_bytes(PTH.read_bytes())
    return home / "bin" / "python"


def environment(place: Place, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {"CACHESVC_ENDPOINT": place.cluster.endpoint, "AWS_ENDPOINT_URL_S3": place.origin.url}
    return kept | own | more


def run(python: Path, place: Place, script: str, **more: str) -> tuple[bytes, str]:
    done = subprocess.run(
        [python, "-c", COUNTS + script, place.origin.url], capture_output=True, check=True,
        env=environment(place, **more), timeout=60,
    )  # fmt: skip
    return done.stdout, done.stderr.decode()


@pytest.mark.slow
def test_an_unchanged_script_reads_the_cache(python: Path, place: Place) -> None:
    plain = run(python, place, SCRIPT)
    assert plain[1] == "None", "nothing of ours is even imported"
    assert run(python, place, SCRIPT, CACHESVC_INTERCEPT="1") == (plain[0], "1")
    assert run(python, place, SCRIPT, CACHESVC_INTERCEPT="0") == plain


@pytest.mark.slow
def test_one_variable_switches_all_of_it_off(python: Path, place: Place) -> None:
    script = f"import cachesvc_client\ncachesvc_client.install()\n{SCRIPT}"
    assert run(python, place, script)[1] == "1"
    for word in ("0", "false", "OFF"):
        assert run(python, place, script, CACHESVC_INTERCEPT=word)[1] == "0"


@pytest.mark.slow
def test_s3_of_fsspec_is_taken_over_when_it_is_imported(python: Path, place: Place) -> None:
    script = (
        "import sys, fsspec\nfs = fsspec.filesystem('s3')\nsys.stdout.write(type(fs).__name__)\n"
        f"assert len(fs.cat_file('{BUCKET}/small')) == 70_000"
    )
    assert run(python, place, script, CACHESVC_INTERCEPT="1")[0] == b"S3ThroughCache"
    given_back = (
        "import cachesvc_client, sys\ncachesvc_client.uninstall()\nimport fsspec, boto3\n"
        "sys.stdout.write(str('s3' in list(fsspec.registry)))\n"
        f"boto3.client('s3', endpoint_url=sys.argv[1]).head_object(Bucket='{BUCKET}', Key='small')"
    )
    assert run(python, place, given_back, CACHESVC_INTERCEPT="1") == (b"False", "0")


@pytest.mark.slow
def test_what_the_program_installs_itself_is_what_counts(python: Path, place: Place) -> None:
    """Whatever is imported before it, and after."""
    install = "import cachesvc_client\ncachesvc_client.install(buckets=['elsewhere'])\n"
    told = "import fsspec, sys\nsys.stdout.write(str('s3' in fsspec.registry))\n"
    for script in (install + told, "import fsspec, boto3\n" + install + told):
        assert run(python, place, script, CACHESVC_INTERCEPT="1")[0] == b"False"
    script = f"{install}import fsspec, boto3\n{SCRIPT}"
    assert run(python, place, script, CACHESVC_INTERCEPT="1")[1] == "0"


@pytest.mark.slow
def test_what_is_wrong_with_the_settings_is_said_and_changes_nothing(
    python: Path, place: Place
) -> None:
    said, errors = run(python, place, SCRIPT, CACHESVC_INTERCEPT="1", CACHESVC_SHADOW="much")
    assert said == run(python, place, SCRIPT)[0]
    assert "CACHESVC_INTERCEPT=1 has no effect on botocore: the share of shadow" in errors


@pytest.mark.slow
def test_spawned_children_of_an_unchanged_script_read_the_cache(
    python: Path, place: Place, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing, sys
import boto3

def work(url):
    body = boto3.client("s3", endpoint_url=url).get_object(Bucket="{BUCKET}", Key="small")["Body"]
    from cachesvc_client import intercepted
    return len(body.read()), intercepted().answered

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(work, sys.argv[1:] * 2, 1))
""")
    done = subprocess.run(
        [python, script, place.origin.url], capture_output=True, check=True, text=True,
        env=environment(place, CACHESVC_INTERCEPT="1"), timeout=60,
    )  # fmt: skip
    assert set(eval(done.stdout)) <= {(70_000, 1), (70_000, 2)}


def forked(client: Any, url: str, pipe: Any) -> None:
    found = [one.get_object(Bucket=BUCKET, Key="big", Range="bytes=5-9000000")["Body"].read()
             for one in (client, boto3.client("s3", endpoint_url=url))]  # fmt: skip
    pipe.send((found == [DATA[5:9_000_001]] * 2, intercepted().answered, intercepted().faults))
    pipe.close()


@pytest.mark.slow
def test_forked_children_use_the_parents_clients_and_their_own(
    place: Place, counted: Counted
) -> None:
    place.install()
    client = place.boto()
    assert client.get_object(Bucket=BUCKET, Key="big")["Body"].read() == DATA
    context = multiprocessing.get_context("fork")
    before = intercepted()
    for _ in range(2):
        ours, theirs = context.Pipe(False)
        child = context.Process(target=forked, args=(client, place.origin.url, theirs))
        child.start()
        theirs.close()
        assert ours.recv() == (True, before.answered + 2, before.faults)
        child.join()
    assert client.get_object(Bucket=BUCKET, Key="big")["Body"].read() == DATA
    assert (counted.answered, counted.faults) == (2, 0)


def test_a_start_without_the_variable_imports_nothing(python: Path) -> None:
    code = "import sys; print('cachesvc' in sys.modules, type(sys.meta_path[0]).__name__)"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CACHESVC_", "PYTHONPATH"))}
    for value, expected in (("", "False type"), ("0", "True type"), ("1", "True _Watch")):
        done = subprocess.run(
            [python, "-c", code], capture_output=True, check=True, text=True,
            env=clean | {"CACHESVC_INTERCEPT": value},
        )  # fmt: skip
        assert (done.stdout.strip(), done.stderr) == (expected, "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_every_wheel_brings_the_pth_file(tmp_path: Path, kind: str) -> None:
    """Built from a copy: setuptools leaves things behind."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "packing", "cachesvc", "client"):
        (tree / name).symlink_to(ROOT / name)
    code = f"import pack; print(pack.build_{kind}({str(tmp_path)!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tree, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tree / "packing")}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        assert wheel.read("cachesvc.pth") == PTH.read_bytes()
        (record,) = (name for name in wheel.namelist() if name.endswith("/RECORD"))
        lines = wheel.read(record).decode().splitlines()
        assert sum(line.startswith("cachesvc.pth,sha256=") for line in lines) == 1
        assert len(lines) == len(wheel.namelist())


def test_install_without_any_door_is_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["cachesvc_client.install"]
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="install needs botocore or fsspec"):
        cachesvc_client.install(place.cluster.endpoint)
    monkeypatch.setattr(module, "find_spec", lambda name: name == "fsspec" or None)
    place.install()
    assert not any("cachesvc" in str(spec[1]) for spec in _builtin_handlers())


def _builtin_handlers() -> list[Any]:
    from botocore.handlers import BUILTIN_HANDLERS

    return list(BUILTIN_HANDLERS)
