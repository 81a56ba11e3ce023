"""The command line: what it prints, and where it looks."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from cachesvc.devorigin import DevOrigin
from tests.support import run_cli


def test_the_version_is_that_of_the_package() -> None:
    told = run_cli("--version")
    assert (told.exit_code, told.stdout) == (0, f"cachesvc {version('cachesvc')}\n")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_without_a_cluster_the_endpoint_of_the_environment_is_read(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "origin").mkdir()
    with DevOrigin(tmp_path / "origin") as origin:
        origin.put("b", "k", b"content")
        monkeypatch.setenv(variable, origin.url)
        file = tmp_path / "copy"
        words = ["get", "s3://b/k", "-o", str(file), "--endpoint", "127.0.0.1:1"]
        done = run_cli(*words)
        assert done.exit_code == 0, done.output
        assert file.read_bytes() == b"content"
