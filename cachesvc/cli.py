"""The command line: a thin shell over node and sidecar (serving.py), the development origin and the
client.

Rules: results go to standard output, as text or with `--json` as one JSON document; everything else
goes to standard error. Exit code 0 only on success, 1 when the work failed, 2 for wrong usage. A
failure is one line that names what failed, on what, why, and what to do. A command imports what it
runs, and nothing that only others need: a person waits for it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cachesvc import exports, serving
from cachesvc.core.addresses import split_address
from cachesvc.core.errors import CacheError, InvalidKey, Unauthenticated
from cachesvc.serving import fail

if TYPE_CHECKING:
    from cachesvc_client import CacheClient

_ALIKE = 0.75  # of SequenceMatcher; the 0.6 of typer suggests `ring` for `drain`


class _Commands(TyperGroup):
    """The commands. Of a command or an option that there is not, it suggests those that were meant,
    and none that only shares some letters.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:
            if hasattr(error, "message") and (near := _alike(args[0], self.commands)):
                error.message += f" Did you mean {' or '.join(near)}?"
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if hasattr(error, "possibilities") and hasattr(error, "option_name"):
                error.possibilities = _alike(error.option_name, error.possibilities or ())
            raise


def _alike(written: str, names: Iterable[str]) -> list[str]:
    """Those that `written` may have meant: nearly it, the beginning of it, or a word of it."""
    wanted = written.strip("-")
    return [
        name
        for name in names
        if SequenceMatcher(None, wanted, name.strip("-")).ratio() >= _ALIKE
        or (wanted and name.startswith(written))
        or written.startswith(name + "-")
        or wanted in name.split("-")
    ]


app = typer.Typer(
    cls=_Commands,
    suggest_commands=False,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A distributed hot-data cache for S3.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Endpoint = Annotated[
    str | None,
    typer.Option(
        help="Where the cluster is: HOST:PORT,..., unix:///PATH or grpc://HOST:PORT.",
        envvar="CACHESVC_ENDPOINT",
    ),
]
OriginUrl = Annotated[
    str | None,
    typer.Option(
        "--origin-endpoint",
        help="The S3 endpoint to read from if the cluster cannot answer;"
        " else AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or AWS.",
    ),
]
Token = Annotated[str | None, typer.Option(help="The cluster's secret.", envvar="CACHESVC_TOKEN")]
Uri = Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as version_of

        print(f"cachesvc {version_of('cachesvc')}")
        raise typer.Exit


@app.callback()
def _any_command(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    return


app.command()(serving.node)
app.command()(serving.sidecar)


@app.command()
def devorigin(
    root: Annotated[Path, typer.Option(help="The folder of the buckets.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT.")],
    first_byte_ms: Annotated[str, typer.Option(help="Latency to the first byte.")] = "0",
    per_connection_mb_s: Annotated[str, typer.Option(help="10^6 bytes/s; 0 is unlimited.")] = "0",
    first_byte_p99_ms: Annotated[
        str, typer.Option(help="Makes the latency lognormal around --first-byte-ms; 0 is fixed.")
    ] = "0",
) -> None:
    """Serve a folder as an S3 endpoint, for development. Prints `ready` when it listens."""
    from cachesvc.devorigin import Shape, run

    try:
        host, port = split_address(listen)
    except ValueError as error:
        fail(f"--listen: {error}", 2)
    latency_ms = _number("--first-byte-ms", first_byte_ms)
    p99_ms = _number("--first-byte-p99-ms", first_byte_p99_ms)
    mb_s = _number("--per-connection-mb-s", per_connection_mb_s)
    try:
        shape = Shape(latency_ms, mb_s, p99_ms)
    except ValueError:
        why = "give --first-byte-ms too, above 0 and at most as much"
        fail(f"--first-byte-p99-ms: {first_byte_p99_ms} will not do: {why}", 2)
    raise typer.Exit(run(root, host, port, shape))


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        fail(f"{option}: {text!r} will not do: write a number, 0 or more", 2)
    return number


@app.command()
def demo(
    source: Annotated[
        Path | None, typer.Option("--input", help="A folder of your own files to read.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("build/demo.json"),
) -> None:
    """Three nodes and an origin on this machine: cold and hot reads, every byte compared."""
    from cachesvc.demo import run as steps

    try:
        steps.run(source, output)
    except (steps.DemoFailed, RuntimeError) as error:
        fail(str(error))
    except ValueError as error:
        fail(str(error), 2)


class _Why(logging.Handler):
    """Keeps the last warning: why the origin is read."""

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()


@contextmanager
def _client(endpoint: str | None, origin: str | None, token: str | None) -> Iterator[CacheClient]:
    """A client; its errors end the program."""
    from cachesvc_client import CacheClient
    from cachesvc_client.engine import DIRECT

    why = _Why()  # what it logs is said here
    logging.getLogger("cachesvc_client").addHandler(why)
    logging.getLogger("cachesvc_client").propagate = False
    try:
        origin_settings = {"endpoint_url": origin} if origin else None
        if not endpoint:
            raise ValueError(
                "no endpoint of a cluster: give --endpoint HOST:PORT,... or set CACHESVC_ENDPOINT"
            )
        with CacheClient(endpoint, origin=origin_settings, token=token) as client:
            yield client
            if DIRECT in client.sources():
                print(
                    why.said or "cachesvc: no node could answer; reading the origin itself",
                    file=sys.stderr,
                )
    except InvalidKey as error:
        fail(str(error), 2)
    except CacheError as error:
        fail(str(error))
    except ValueError as error:
        fail(str(error), 2)


def _print(result: Any, as_json: bool, text: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(result))
    else:
        text()


@app.command()
def get(
    uri: Uri,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file; else, or -, standard output.")
    ] = None,
    endpoint: Endpoint = None,
    origin: OriginUrl = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Read an object through the cache."""
    output = None if output == Path("-") else output
    if as_json and output is None:
        fail("--json needs -o FILE: without it, the object itself goes to standard output", 2)
    began_s = time.perf_counter()
    with _client(endpoint, origin, token) as client, client.open(uri) as source:
        size_bytes = 0
        try:
            target = sys.stdout.buffer if output is None else output.open("wb")
        except OSError as error:
            fail(f"{output} cannot be written: {error.strerror}")
        try:
            while chunk := source.read(32 << 20):
                target.write(chunk)
                size_bytes += len(chunk)
        except OSError as error:
            if isinstance(error, CacheError):
                raise
            if isinstance(error, BrokenPipeError) and output is None:
                raise SystemExit(1) from error  # whoever reads our output has had enough
            fail(f"{output or 'standard output'} cannot be written: {error.strerror}")
        finally:
            if output is not None:
                target.close()
        sources = {name: count for name, count in client.sources().items() if count}
    if output is None:
        return
    seconds = time.perf_counter() - began_s
    result = {
        "uri": uri,
        "file": str(output),
        "size_bytes": size_bytes,
        "seconds": round(seconds, 3),
        "sources": sources,
    }
    came = ", ".join(f"{name} {count}" for name, count in sources.items()) or "nowhere"
    text = f"{uri} -> {output}: {size_bytes} bytes in {seconds:.2f} s, from: {came}"
    to = sys.stdout if output.is_file() else sys.stderr  # not behind the bytes, as on /dev/stdout
    _print(result, as_json, lambda: print(text, file=to))


@app.command()
def stat(
    uri: Uri,
    endpoint: Endpoint = None,
    origin: OriginUrl = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """The object's size, ETag and time of last change."""
    with _client(endpoint, origin, token) as client:
        found = client.stat(uri)
    result = {
        "uri": uri,
        "size_bytes": found.size,
        "etag": found.etag,
        "last_modified": found.last_modified.isoformat(),
    }
    _print(result, as_json, lambda: print("\n".join(f"{k}: {v}" for k, v in result.items())))


@app.command()
def ring(endpoint: Endpoint = None, token: Token = None, as_json: Json = False) -> None:
    """The members of the cluster and their shares of the ring."""
    from cachesvc.core.ring import Ring

    with _client(endpoint, None, token) as client:
        table = client.ring()
    shares = Ring(table).shares()
    rows = [
        {
            "node_id": member.node_id,
            "lane": member.lane_address,
            "grpc": member.grpc_address,
            "weight": member.weight,
            "share": round(shares[member.node_id], 4),
        }
        for member in table.members
    ]
    result = {"epoch": f"{table.epoch:016x}", "members": rows}
    _print(result, as_json, lambda: _print_table(f"epoch {result['epoch']}", rows))


@app.command()
def where(uri: Uri, endpoint: Endpoint = None, token: Token = None, as_json: Json = False) -> None:
    """Which nodes own the blocks of an object, the first owner first."""
    with _client(endpoint, None, token) as client:
        rows = [
            {"block": index, "owners": owners if as_json else ", ".join(owners)}
            for index, owners in client.where(uri)
        ]

    def text() -> None:
        if rows:
            _print_table(uri, rows)
        else:
            print(f"{uri} is empty: it has no blocks")

    _print({"uri": uri, "blocks": rows}, as_json, text)


@app.command()
def status(endpoint: Endpoint = None, token: Token = None, as_json: Json = False) -> None:
    """Which members answer, agree on the ring, have S3 credentials, have met all others. Exit code
    1 if one does not.
    """
    with _client(endpoint, None, token) as client:
        try:
            nodes = [(one.node_id, one.lane_address) for one in client.ring().members]
        except CacheError:  # nobody tells who the members are: those that were named, then
            prefix = "grpc://" if client.config.grpc else ""
            nodes = [("", prefix + address) for address in client.config.endpoints]
    rows = [{"node_id": node_id, "lane": lane} | _state(lane, token) for node_id, lane in nodes]
    for row in rows:
        if row["why"]:
            print(f"cachesvc: {row['lane']} is {row['state']}: {row['why']}", file=sys.stderr)
    healthy = len({row["epoch"] for row in rows}) == 1 and not any(row["why"] for row in rows)
    shown = [{key: row[key] for key in ("node_id", "lane", "state", "epoch")} for row in rows]
    _print({"healthy": healthy, "members": rows}, as_json, lambda: _print_table("members", shown))
    raise typer.Exit(0 if healthy else 1)


def _state(address: str, token: str | None) -> dict[str, str]:
    """Of the node there: up and its epoch; down, refusing the token or in trouble, and why."""
    from cachesvc_client import CacheClient

    try:
        with CacheClient(address, token=token) as one:
            said = one.greeting()
        state = "in trouble" if said.trouble else "up"
        return {"state": state, "epoch": f"{said.table.epoch:016x}", "why": said.trouble}
    except CacheError as error:
        state = "closed to this token" if isinstance(error, Unauthenticated) else "down"
        return {"state": state, "epoch": "", "why": str(error)}


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


app.command()(exports.env)


def main() -> None:
    """The command line."""
    app()


if __name__ == "__main__":
    main()
