"""The steps of the demo: what is read, by whom, and what came of it, for build/demo.json.

Every step reads from processes of its own, and every byte that they got is compared by SHA-256 with
the file that the origin serves. One difference, and the demo fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from cachesvc.demo.cluster import ENVIRONMENT, SHAPE, DemoCluster, demo_cluster
from cachesvc.demo.inputs import Input, own, standard
from cachesvc.demo.table import Step, show

BUCKET = "demo"
LARGE_THREADS = 4
SMALL_THREADS = 16
SMALL_BYTES = 8 << 20  # no small object has more
CROWD_COUNT = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """One step to do. what: one of large, small, crowd. cache: none, cold or hot."""

    name: str
    what: str
    cache: str
    keys: list[str]
    threads: int
    processes: int = 1


class DemoFailed(RuntimeError):
    """Bytes differed, or a reader failed."""


def run(folder: Path | None, output: Path) -> None:
    """Run the demo on the standard input, or on a folder of the user's; write the result as JSON.

    Raises:
        DemoFailed: a reader failed, or got a wrong byte.
        ValueError: the folder cannot serve as input.
    """
    console = Console()
    output.parent.mkdir(parents=True, exist_ok=True)
    downloads = output.parent / "demo-input"
    downloads.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cachesvc-demo-", dir=output.parent) as name:
        work = Path(name)
        with _progress(console, "preparing the input"):
            found = own(folder) if folder is not None else standard(downloads)
            digests = found.lay_out(work / "origin" / BUCKET)
        with demo_cluster(work / "origin", work / "data") as cluster:
            steps = list(_steps(console, cluster, found, digests))
    result = {
        "input": found.notes,
        "origin": {"first_byte_ms": SHAPE.first_byte_ms, "mb_s": SHAPE.per_connection_mb_s},
        "nodes": len(cluster.admins),
        "all_bytes_equal": True,
        "steps": [asdict(step) for step in steps],
    }
    output.write_text(json.dumps(result, indent=2) + "\n")
    show(console, steps, found.notes, output)


def _steps(
    console: Console, cluster: DemoCluster, found: Input, digests: dict[str, str]
) -> Iterator[Step]:
    for plan in _plans(found):
        with _progress(console, plan.name):
            yield _step(cluster, plan, digests)


def _plans(found: Input) -> Iterator[Plan]:
    for what, keys, threads in (
        ("large", found.big, LARGE_THREADS),
        ("small", found.small, SMALL_THREADS),
    ):
        if keys:
            name = "large objects" if what == "large" else "many small objects"
            yield Plan(f"{name}, without the cache", what, "none", keys, threads)
            yield Plan(f"{name}, cold", what, "cold", keys, threads)
            yield Plan(f"{name}, hot, another process", what, "hot", keys, threads)
    crowd = f"{CROWD_COUNT} processes at once, one cold object"
    yield Plan(crowd, "crowd", "cold", [found.crowd], 1, CROWD_COUNT)


def _step(cluster: DemoCluster, plan: Plan, digests: dict[str, str]) -> Step:
    before = cluster.bytes_by_source()
    results = _read(cluster, plan)
    after = cluster.bytes_by_source()
    for result in results:
        for key in plan.keys:
            if result["sha256"][f"s3://{BUCKET}/{key}"] != digests[key]:
                raise DemoFailed(f"{plan.name}: {key} came with other bytes than the origin has")
    gets = [
        one
        for one in cluster.origin.requests
        if one.operation == "GetObject" and one.status in (200, 206)
    ]
    answered = {source: after[source] - before.get(source, 0) for source in after}
    read_bytes = sum(result["bytes"] for result in results)
    origin_bytes = sum(one.body_bytes for one in gets)
    seconds = max(result["seconds"] for result in results)
    return Step(
        name=plan.name,
        what=plan.what,
        cache=plan.cache,
        processes=plan.processes,
        threads=plan.threads,
        objects=len(plan.keys),
        read_bytes=read_bytes,
        seconds=seconds,
        mb_s=read_bytes / seconds / 1e6,
        origin_heads=sum(one.operation == "HeadObject" for one in cluster.origin.requests),
        origin_gets=len(gets),
        origin_bytes=origin_bytes,
        read_per_fetched=read_bytes / origin_bytes if origin_bytes else None,
        hit_share=answered.get("disk", 0) / max(1, read_bytes),
    )


def _read(cluster: DemoCluster, plan: Plan) -> list[dict]:  # type: ignore[type-arg]
    """Let processes read the keys, all beginning at the same moment."""
    work: dict[str, object] = {
        "endpoint": None if plan.cache == "none" else cluster.endpoint,
        "origin": cluster.origin.url,
        "uris": [f"s3://{BUCKET}/{key}" for key in plan.keys],
        "end": SMALL_BYTES if plan.what == "small" else None,
        "threads": plan.threads,
    }
    with ExitStack() as exits:
        children = [exits.enter_context(_reader(work)) for _ in range(plan.processes)]
        for child in children:
            _line(child)
        cluster.origin.clear_log()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        return [json.loads(_line(child)) for child in children]


@contextmanager
def _reader(work: dict[str, object]) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "cachesvc.demo.reader"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(work) + "\n")
    child.stdin.flush()
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise DemoFailed(f"a reading process ended with {child.wait()}")
    return line


@contextmanager
def _progress(console: Console, text: str) -> Iterator[None]:
    if not console.is_terminal:
        print(f"{text} ...", flush=True)
        yield
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), transient=True) as progress:
        progress.add_task(text)
        yield
