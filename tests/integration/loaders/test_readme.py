"""README's steps run in the order in which they stand, in one shell, on an empty folder.

Story: the nodes of the quick start lacked `--s3` and `--unix`, which the next steps need.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from cachesvc.devorigin.ports import free_ports

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
SECTIONS = ("Three nodes by hand", "The client", "boto3, aiobotocore, s3fs", "Any program that")
PROGRAMS = 4  # each says ready
LIBRARIES = ("boto3", "fsspec", "numpy")


def steps() -> list[str]:
    """The blocks of the sections, as bash."""
    found = []
    for section in SECTIONS:
        text = re.split(r"\n#+ ", README.partition(f" {section}")[2])[0]
        for language, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL):
            if language == "sh":
                ready = block.replace("make setup\n", "")
                found.append(ready.replace("--for boto3", "--for boto3 --gateway 127.0.0.1:7072"))
            elif "import" in block:
                found.append(f".venv/bin/python - <<'END'\n{block}END\n")
    return found


def on_free_ports(text: str) -> str:
    """70 to 72 as the first digits of ports become others, and so does the origin's 9000."""
    for first in range(20, 60):
        with ExitStack() as held:
            try:
                for node in range(3):
                    for door in range(4):
                        place = ("127.0.0.1", int(f"{first}{node}7{door}"))
                        held.enter_context(socket.create_server(place))
            except OSError:
                continue
        text = re.sub(r":7(\$\{i\}|[0-2])7([0-3])\b", rf":{first}\g<1>7\2", text)
        return text.replace(":9000", f":{free_ports(1)[0]}")
    raise AssertionError("no ports are free")


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(find_spec, LIBRARIES)), reason=f"one of {', '.join(LIBRARIES)} is not installed"
)
def test_the_steps_run_as_they_stand(tmp_path: Path) -> None:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, command in (("cachesvc", "-m cachesvc"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        (programs / name).chmod(0o755)
    first, *others = on_free_ports("\f".join(steps())).split("\f")
    smaller = first.replace("100000000", "10000000")
    assert smaller != first
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")])}
    with (
        (tmp_path / "errors").open("w+") as errors,
        subprocess.Popen(
            ["bash", "-e"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            cwd=tmp_path, env=environment, start_new_session=True,
        ) as shell,
    ):  # fmt: skip
        try:
            assert shell.stdin is not None
            assert shell.stdout is not None
            shell.stdin.write("trap 'kill $(jobs -p); wait' EXIT\n" + smaller)
            shell.stdin.flush()
            said = [shell.stdout.readline() for _ in range(PROGRAMS)]
            assert said == ["ready\n"] * PROGRAMS
            said += shell.communicate("".join(others), timeout=100)[:1]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        errors.seek(0)
        assert shell.returncode == 0, (said, errors.read())
    assert (tmp_path / "build/try/boto3.bin").stat().st_size == 10_000_000
