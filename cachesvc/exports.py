"""What to set so that other programs read through the S3 gateway: `cachesvc env --for PROGRAM`.

Rules: a shell can evaluate the text. What a variable can say is an `export`; what none can is a
comment with the lines to write. AWS_ENDPOINT_URL_S3 wherever it is honoured: AWS_ENDPOINT_URL sends
every service of AWS to the gateway, STS too, so that roles are assumed no more.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated

import typer

_NOT_ONLY_S3 = (
    "honours AWS_ENDPOINT_URL alone, which other AWS services (STS) follow too: set it for this"
    " program only"
)
_VARIABLES = {
    "boto3": ["AWS_ENDPOINT_URL_S3={url}"],
    "s3torchconnector": ["AWS_ENDPOINT_URL={url}"],
    "vllm": [
        "AWS_ENDPOINT_URL={url}", "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING=0",
        "AWS_EC2_METADATA_DISABLED=true",
    ],
    "obstore": ["AWS_ENDPOINT_URL={url}", "AWS_ALLOW_HTTP=true"],
    "polars": ["AWS_ENDPOINT_URL={url}", "AWS_ALLOW_HTTP=true"],
    "mosaicml": ["S3_ENDPOINT_URL={url}"],
    "webdataset": ["AWS_ENDPOINT_URL_S3={url}"],
    "pyarrow": [],
    "duckdb": [],
}  # fmt: skip
_NOTES = {
    "s3torchconnector": [
        f"s3torchconnector {_NOT_ONLY_S3}",
        "where the gateway has a name and no number: S3ClientConfig(force_path_style=True)",
    ],
    "vllm": [f"vllm's runai_streamer {_NOT_ONLY_S3}"],
    "obstore": [f"obstore {_NOT_ONLY_S3}"],
    "polars": [f"polars {_NOT_ONLY_S3}"],
    "webdataset": ["for shards read by the command line of AWS: pipe:aws s3 cp s3://bucket/key -"],
    "pyarrow": [
        "pyarrow honours no variable for the endpoint; write",
        '    pyarrow.fs.S3FileSystem(endpoint_override="{url}")',
    ],
    "duckdb": [
        "duckdb honours no variable for the endpoint; write",
        "    CREATE SECRET (TYPE s3, PROVIDER credential_chain, ENDPOINT '{address}',",
        "        URL_STYLE 'path', USE_SSL {tls});",
    ],
}
_GATEWAY = "127.0.0.1:7072"
_HOST = r"([\w.-]+|\[[0-9a-fA-F:.]+\])"
_ADDRESS = re.compile(rf"{_HOST}:\d{{1,5}}|https?://{_HOST}(:\d{{1,5}})?/?")
PROGRAMS = tuple(sorted(_VARIABLES))
CREDENTIALS = "any AWS credentials and region do, unless the gateway has keys (--s3-auth)"


def exports(program: str, gateway: str) -> str:
    """The text for a program, to be read by a shell. gateway: HOST:PORT, or a URL.

    Raises ValueError for a program that is not known, naming those there are, and for what is no
    address.
    """
    if program not in _VARIABLES:
        raise ValueError(f"{program!r} is not known: give one of {', '.join(PROGRAMS)}")
    if not _ADDRESS.fullmatch(gateway):
        raise ValueError(f"{gateway!r} is no gateway: give HOST:PORT, or http://HOST:PORT")
    url = gateway.rstrip("/") if "://" in gateway else f"http://{gateway}"
    scheme, _, address = url.partition("://")
    known = {"url": url, "address": address, "tls": str(scheme == "https").lower()}
    notes = [note.format(**known) for note in _NOTES.get(program, [])]
    settings = [one.format(**known).partition("=") for one in _VARIABLES[program]]
    lines = [f"# {note}" for note in [*notes, CREDENTIALS]]
    return "\n".join(lines + [f"export {name}={shlex.quote(value)}" for name, _, value in settings])


def env(
    program: Annotated[str, typer.Option("--for", help=f"One of {', '.join(PROGRAMS)}.")],
    gateway: Annotated[str, typer.Option(help="The S3 gateway, HOST:PORT or a URL.")] = _GATEWAY,
) -> None:
    """What to set so that a program reads through the gateway: eval "$(cachesvc env --for ...)"."""
    try:
        typer.echo(exports(program, gateway))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
