"""The commands that store and serve, until SIGTERM: `cachesvc node` and `cachesvc sidecar`.

Rules: an option is described once, for both; what it may be and what it is by default stands in
config.py. A failure is one line on standard error: code 2 for a setting, 1 for what it meets.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

NodeId = Annotated[str | None, typer.Option(help="Who this is; else the id kept on its disk.")]
DataDir = Annotated[list[str] | None, typer.Option(help="Where block files are kept; repeatable.")]
Capacity = Annotated[str | None, typer.Option(help="Space for block files: 2GiB.")]
Lane = Annotated[str | None, typer.Option(help="TCP lane, HOST:PORT.")]
Unix = Annotated[Path | None, typer.Option(help="Unix lane: a socket for clients on this host.")]
UnixGroup = Annotated[str | None, typer.Option(help="A group that may use the Unix socket too.")]
Grpc = Annotated[str | None, typer.Option(help="gRPC, HOST:PORT.")]
S3 = Annotated[str | None, typer.Option(help="The S3 gateway, HOST:PORT.")]
S3Auth = Annotated[str | None, typer.Option(help="Who may use it: none or sigv4.")]
S3Keys = Annotated[
    Path | None, typer.Option(help="Its clients' keys: lines ACCESS_KEY SECRET_KEY.")
]
S3Domain = Annotated[
    str | None, typer.Option(help="Its host name, for BUCKET.NAME in place of /BUCKET.")
]
Admin = Annotated[str | None, typer.Option(help="Health and metrics, HOST:PORT.")]
Revalidate = Annotated[str | None, typer.Option(help="always, never, or a time: 10s.")]
DrainTimeout = Annotated[str | None, typer.Option(help="How long requests may take to end.")]
OriginEndpoint = Annotated[str | None, typer.Option(help="S3 endpoint URL; else AWS.")]
OriginGets = Annotated[str | None, typer.Option(help="GETs to the origin at a time.")]
Eviction = Annotated[str | None, typer.Option(help="s3fifo or lru.")]
TokenFile = Annotated[Path | None, typer.Option(help="The secret that everyone must show.")]
Insecure = Annotated[bool | None, typer.Option("--insecure", help="Off loopback without a token.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file with a section of this name.")
]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]


def fail(message: str, code: int = 1) -> NoReturn:
    """One line on standard error, and out."""
    typer.echo(f"cachesvc: {message}", err=True)
    raise typer.Exit(code)


def node(
    node_id: NodeId = None,
    data_dir: DataDir = None,
    capacity: Capacity = None,
    lane: Lane = None,
    unix: Unix = None,
    unix_group: UnixGroup = None,
    grpc: Grpc = None,
    s3: S3 = None,
    s3_auth: S3Auth = None,
    s3_keys: S3Keys = None,
    s3_domain: S3Domain = None,
    admin: Admin = None,
    members: Annotated[
        str | None, typer.Option(help="Lane addresses of all nodes, or file:PATH.")
    ] = None,
    weight: Annotated[str | None, typer.Option(help="Share of the ring, 1 to 100.")] = None,
    revalidate: Revalidate = None,
    drain_timeout: DrainTimeout = None,
    origin_endpoint: OriginEndpoint = None,
    origin_gets: OriginGets = None,
    eviction: Eviction = None,
    token_file: TokenFile = None,
    insecure: Insecure = None,
    config_file: ConfigFile = None,
    log_level: LogLevel = "info",
) -> None:
    """Run a cache node until SIGTERM. Prints `ready` when it can serve."""
    _serve("load", locals())


def sidecar(
    ring: Annotated[
        str | None, typer.Option(help="Lanes of nodes of the ring, any: HOST:PORT,...")
    ] = None,
    node_id: NodeId = None,
    data_dir: DataDir = None,
    capacity: Capacity = None,
    lane: Lane = None,
    unix: Unix = None,
    unix_group: UnixGroup = None,
    grpc: Grpc = None,
    s3: S3 = None,
    s3_auth: S3Auth = None,
    s3_keys: S3Keys = None,
    s3_domain: S3Domain = None,
    admin: Admin = None,
    revalidate: Revalidate = None,
    drain_timeout: DrainTimeout = None,
    origin_endpoint: OriginEndpoint = None,
    origin_gets: OriginGets = None,
    eviction: Eviction = None,
    token_file: TokenFile = None,
    insecure: Insecure = None,
    config_file: ConfigFile = None,
    log_level: LogLevel = "info",
) -> None:
    """Run a sidecar until SIGTERM: a small store on this host; what it misses comes from the ring,
    and from S3 if the ring is gone. Prints `ready` when it can serve.
    """
    _serve("load_sidecar", locals())


def _serve(load: str, given: dict[str, Any]) -> None:
    """Run what the options say. load: by which function of config. given: the arguments of the
    command, by name.

    Garbage is not looked for before it is ready: nearly all that a start makes stays.
    """
    log_level, config_file = given.pop("log_level"), given.pop("config_file")
    if log_level not in ("debug", "info", "warning", "error"):
        fail(f"--log-level {log_level}: write debug, info, warning or error", 2)
    gc.disable()
    try:
        from cachesvc import app, config, logs

        logs.setup(log_level)
        try:
            app.run(getattr(config, load)(given, config_file))
        except config.ConfigError as error:
            fail(str(error), 2)
        except app.StartError as error:
            fail(str(error))
    finally:
        gc.enable()
