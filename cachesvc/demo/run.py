"""The steps of the demo and what they showed: a table for people, build/demo.json for programs.

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
from rich.table import Table

from cachesvc.demo.cluster import ENVIRONMENT, SHAPE, DemoCluster, demo_cluster
from cachesvc.demo.inputs import Input, own, standard

BUCKET = "demo"
SMALL_THREADS = 16
CROWD_COUNT = 16


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table. hit_share: bytes from the nodes' disks over all bytes read."""

    name: str
    processes: int
    objects: int
    read_bytes: int
    seconds: float
    mb_s: float
    origin_heads: int
    origin_gets: int
    origin_bytes: int
    hit_share: float


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
    _print(console, found, steps, output)


def _steps(
    console: Console, cluster: DemoCluster, found: Input, digests: dict[str, str]
) -> Iterator[Step]:
    plan = [
        ("large objects, cold", found.big, 4, 1),
        ("large objects, hot, another process", found.big, 4, 1),
    ]
    if found.small:
        plan += [
            ("many small objects, cold", found.small, SMALL_THREADS, 1),
            ("many small objects, hot, another process", found.small, SMALL_THREADS, 1),
        ]
    plan.append(
        (f"{CROWD_COUNT} processes at once, one cold object", [found.crowd], 1, CROWD_COUNT)
    )
    for name, keys, threads, processes in plan:
        with _progress(console, name):
            yield _step(cluster, name, keys, threads, processes, digests)


def _step(
    cluster: DemoCluster,
    name: str,
    keys: list[str],
    threads: int,
    processes: int,
    digests: dict[str, str],
) -> Step:
    cluster.origin.clear_log()
    before = cluster.bytes_by_source()
    results = _read(cluster, keys, threads, processes)
    after = cluster.bytes_by_source()
    for result in results:
        for key in keys:
            if result["sha256"][f"s3://{BUCKET}/{key}"] != digests[key]:
                raise DemoFailed(f"{name}: {key} came back with other bytes than the origin has")
    gets = [one for one in cluster.origin.requests if one.operation == "GetObject"]
    answered = {source: after[source] - before.get(source, 0) for source in after}
    read_bytes = sum(result["bytes"] for result in results)
    seconds = max(result["seconds"] for result in results)
    return Step(
        name=name,
        processes=processes,
        objects=len(keys),
        read_bytes=read_bytes,
        seconds=seconds,
        mb_s=read_bytes / seconds / 1e6,
        origin_heads=sum(one.operation == "HeadObject" for one in cluster.origin.requests),
        origin_gets=len(gets),
        origin_bytes=sum(one.body_bytes for one in gets),
        hit_share=answered.get("disk", 0) / max(1, read_bytes),
    )


def _read(cluster: DemoCluster, keys: list[str], threads: int, processes: int) -> list[dict]:  # type: ignore[type-arg]
    """Let processes read the keys, all beginning at the same moment."""
    work = {
        "endpoint": cluster.endpoint,
        "origin": cluster.origin.url,
        "uris": [f"s3://{BUCKET}/{key}" for key in keys],
        "threads": threads,
    }
    with ExitStack() as exits:
        children = [exits.enter_context(_reader(work)) for _ in range(processes)]
        for child in children:
            _line(child)
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


def _print(console: Console, found: Input, steps: list[Step], output: Path) -> None:
    table = Table(
        title="cachesvc demo: 3 nodes; origin with 30 ms to the first byte, 90 MB/s a connection"
    )
    for column in (
        "step",
        "processes",
        "objects",
        "MB read",
        "time",
        "MB/s",
        "origin HEADs",
        "origin GETs",
        "MB from origin",
        "hits",
    ):
        table.add_column(column, justify="left" if column == "step" else "right")
    for step in steps:
        table.add_row(
            step.name, str(step.processes), str(step.objects), f"{step.read_bytes / 1e6:.1f}",
            f"{step.seconds:.2f} s", f"{step.mb_s:.0f}",
            str(step.origin_heads), str(step.origin_gets), f"{step.origin_bytes / 1e6:.1f}",
            f"{step.hit_share:.0%}",
        )  # fmt: skip
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table)
    for note in found.notes:
        console.print(f"  {note}")
    for line in (
        "hits: bytes that came from the nodes' disks. All others came from the origin, once,",
        "however many processes asked. The nodes check a version again (HEAD) after a minute.",
        "Every byte that any process got was compared by SHA-256: equal.",
    ):
        console.print(f"  {line}")
    console.print(f"  written to {output}")
