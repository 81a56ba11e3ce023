"""What the benchmarks may use: a virtual environment of the peers' clients, Debian's servers.

Rules: versions are pinned (constraints.txt, benchmarks/constraints.txt); nothing goes into the
environment of the service itself; what can't be had is a reason and not an error, and the systems
that need it are skipped with that reason. Every step has a time limit.

Story: `prepare` installs Debian packages if it may, makes build/bench-venv once for each state of
the constraints, and finds out which modules and programs are really there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEERS = {
    "boto3": "boto3",
    "fsspec": "fsspec",
    "numpy": "numpy",
    "obstore": "obstore",
    "pyarrow": "pyarrow",
    "redis": "redis",
    "s3fs": "s3fs",
    "safetensors": "safetensors",
}
DEBIAN = {
    "nginx": "nginx-light",
    "redis-server": "redis-server",
    "varnishd": "varnish",
    "openssl": "openssl",
}
_CONSTRAINTS = ("constraints.txt", "benchmarks/constraints.txt")
_STEP_LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Environment:
    """The Python of reading processes, and what is missing: module or program -> reason."""

    python: str
    missing: dict[str, str]

    def lacking(self, needs: Sequence[str]) -> str | None:
        """Why a system with these needs can't run, or None."""
        reasons = [self.missing[need] for need in needs if need in self.missing]
        return "; ".join(reasons) or None


def prepare(build: Path, *, install: bool) -> Environment:
    """Find or install what the benchmarks use. `install` False: only look."""
    missing = {}
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = f"{path}:/usr/sbin:/sbin"  # where Debian puts servers
    if install:
        _install_debian()
    for program, package in DEBIAN.items():
        if shutil.which(program) is None:
            missing[program] = f"{program} is not installed (apt-get install {package})"
    python = sys.executable
    failures: dict[str, str] = {}
    if install:
        made, failures = _make_venv(build / "bench-venv")
        python = made or python
    for module in _absent(python, PEERS):
        missing[module] = failures.get(module, f"the module {module} is not installed")
    return Environment(python, missing)


def lack_of_room(folder: Path, *, memory_gib: float = 0, disk_gib: float = 0) -> str | None:
    """Why this machine is too small for a workload, or None."""
    fields = dict(
        line.split(":") for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    memory = int(fields["MemAvailable"].split()[0]) / (1 << 20)
    disk = shutil.disk_usage(folder).free / (1 << 30)
    if memory < memory_gib:
        return f"needs {memory_gib:g} GiB of memory, {memory:.1f} are available"
    if disk < disk_gib:
        return f"needs {disk_gib:g} GiB of disk for temporary files, {disk:.1f} are free"
    return None


def _absent(python: str, modules: Sequence[str] | dict[str, str]) -> list[str]:
    code = (
        "import importlib.util, json, sys;"
        "print(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n) is None]))"
    )
    done = subprocess.run(
        [python, "-c", code, *modules], capture_output=True, text=True, check=True, timeout=60
    )
    absent: list[str] = json.loads(done.stdout)
    return absent


def _run(*command: str) -> str | None:
    """Why it failed, in a line, or None."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_STEP_LIMIT_S,
            env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1]


def _install_debian() -> None:
    wanted = [package for program, package in DEBIAN.items() if shutil.which(program) is None]
    if not wanted or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    _run("apt-get", "-qq", "update")
    for package in wanted:
        print(f"apt-get install {package} ...", flush=True)
        _run("apt-get", "-qq", "install", "-y", "--no-install-recommends", package)


def _make_venv(folder: Path) -> tuple[str | None, dict[str, str]]:
    """Its Python, or None; and why peers are not in it."""
    python = str(folder.absolute() / "bin" / "python")
    text = "".join((ROOT / name).read_text() for name in _CONSTRAINTS)
    state = hashlib.sha256(f"{sys.version}{sorted(PEERS)}{text}".encode()).hexdigest()
    stamp = folder / "state"
    if stamp.exists() and stamp.read_text() == state:
        return python, {}
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making {folder} ...", flush=True)
    failure = _run(sys.executable, "-m", "venv", str(folder))
    constraints = [part for name in _CONSTRAINTS for part in ("-c", str(ROOT / name))]
    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *constraints)
    failure = failure or _run(*pip, "grpcio", "protobuf", "xxhash")
    if failure:
        return None, dict.fromkeys(PEERS, f"build/bench-venv can't be made: {failure}")
    if _run(*pip, *PEERS.values()) is None:
        stamp.write_text(state)
        return python, {}
    failures = {}
    for module, package in PEERS.items():
        failure = _run(*pip, package)
        if failure:
            failures[module] = f"{package} can't be installed: {failure}"
    return python, failures
