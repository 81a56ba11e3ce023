"""The settings of a node and of a sidecar: frozen values, read in one place.

Order: flag, then environment (`CACHESVC_NODE__CAPACITY`, `CACHESVC_SIDECAR__CAPACITY`), then file
(`[node]`, `[sidecar]` of a TOML file), then default. Unknown keys are refused with the nearest
known one. Not so environment variables that do not begin with the prefix: they may be others, as
those that Kubernetes sets for a Service, and one that resembles a setting is only warned of. Sizes
are written `10GiB`, times `5s`. A refusal is one short sentence: the setting, the value, and what
to write. What must be equal on every node of a cluster is no setting of a node: it is
core.types.Geometry.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cachesvc.core.addresses import is_loopback, split_address
from cachesvc.core.ring import MAX_NODE_ID_CHARS, MAX_WEIGHT
from cachesvc.core.types import Geometry

MIN_CAPACITY_BYTES = (
    2 * Geometry().block_bytes
)  # a data directory; below, blocks only displace each other
MAX_SOCKET_PATH_BYTES = 107  # the kernel's sockaddr_un has 108, one of them for the end
_OTHER_VARIABLES = (  # the client's
    "CACHESVC_ENDPOINT", "CACHESVC_TOKEN",
    "CACHESVC_INTERCEPT", "CACHESVC_BUCKETS", "CACHESVC_SHADOW",
)  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[kmgtp]i?)?b?)", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.IGNORECASE)
_TIME_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_ORIGIN_GETS = 1024
_TO_WRITE = {
    "node_id": f"up to {MAX_NODE_ID_CHARS} visible ASCII characters, no spaces",
    "data_dir": "one directory or several",
    "capacity": "10GiB, 500MB or a number of bytes",
    "lane": "HOST:PORT",
    "unix": "the path of a socket",
    "unix_group": "the name of a group",
    "grpc": "HOST:PORT",
    "s3": "HOST:PORT",
    "s3_auth": "none or sigv4",
    "s3_keys": "the path of a file with lines ACCESS_KEY SECRET_KEY",
    "s3_domain": "a host name such as s3.example.com",
    "admin": "HOST:PORT",
    "members": "HOST:PORT,... or file:PATH",
    "ring": "HOST:PORT,...",
    "weight": f"a whole number from 1 to {MAX_WEIGHT}",
    "revalidate": "always, never, or a time such as 10s",
    "drain_timeout": "a time such as 10s",
    "origin_endpoint": "http://HOST:PORT or https://HOST:PORT",
    "origin_gets": f"a whole number from 1 to {_MAX_ORIGIN_GETS}",
    "eviction": "s3fifo or lru",
    "token_file": "the path of a file",
    "insecure": "true or false",
}

log = structlog.get_logger(__name__)


class ConfigError(ValueError):
    """A setting that cannot be: the message names it and says what to write instead."""


def unreadable(setting: str, path: object, error: OSError | UnicodeDecodeError) -> ConfigError:
    """What to raise for a setting's file."""
    why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
    return ConfigError(f"{setting}: {path} cannot be read: {why}")


def parse_size(value: object) -> object:
    """`2GiB`, `500MB`, `4096` as bytes; anything but text is passed on."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is no size: write 10GiB, 500MB or a number of bytes")
    unit = match[2].lower().rstrip("b")
    base = 1024 if unit.endswith("i") else 1000
    return int(float(match[1]) * base ** " kmgtp".index(unit[:1] or " "))


def parse_time(value: object) -> object:
    """`5s`, `200ms`, `1m` as seconds; anything but text is passed on."""
    if not isinstance(value, str):
        return value
    match = _TIME.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is no time: write 5s, 200ms or 1m")
    return float(match[1]) * _TIME_UNITS_S[(match[2] or "s").lower()]


def parse_revalidate(value: object) -> object:
    """`always` is 0, `never` is infinite, else a time."""
    if isinstance(value, str) and value in ("always", "never"):
        return 0.0 if value == "always" else float("inf")
    return parse_time(value)


def parse_address(value: object) -> object:
    """HOST:PORT, checked; the text stays as it is."""
    if isinstance(value, str):
        split_address(value)
    return value


def parse_url(value: object) -> object:
    """An http or https URL, checked, or nothing; the text stays as it is."""
    if isinstance(value, str) and value and not re.match("https?://.", value):
        raise ValueError(f"{value!r} is no URL: write http://HOST:PORT or https://HOST:PORT")
    return value


def parse_paths(value: object) -> object:
    """One path or several: a list, or text with commas."""
    if isinstance(value, str):
        if value.startswith("["):
            raise ValueError(f"{value!r} is no list of paths: write them with commas, DIR,DIR")
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and any(not str(part).strip() for part in value):
        raise ValueError("'' is no directory: name one, or write . for the current folder")
    return value


Size = Annotated[int, BeforeValidator(parse_size)]
Seconds = Annotated[float, BeforeValidator(parse_time), Field(ge=0)]
Address = Annotated[str, BeforeValidator(parse_address)]


class HostConfig(BaseModel):
    """What is told to whatever stores and serves: a node, or a sidecar."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    section: ClassVar[str]

    node_id: str = Field("", max_length=MAX_NODE_ID_CHARS, pattern=r"^[!-~]*$")
    """Who the node is on the ring. Empty: the id kept in its first data directory, made at need."""
    data_dir: Annotated[tuple[Path, ...], BeforeValidator(parse_paths)] = ()
    """Where block files are kept; several directories share the capacity evenly."""
    capacity: Size = 10 << 30
    """Bytes that block files may take on disk, over all data directories."""
    lane: Address = "127.0.0.1:7071"
    """The TCP lane."""
    unix: Path | None = None
    """The Unix lane: the path of its socket, for clients on this host. None: no Unix lane."""
    unix_group: str = ""
    """A group whose members may use the Unix socket too. Empty: only root and the node's user."""
    grpc: Address = "127.0.0.1:7070"
    """The gRPC service."""
    s3: Address | None = None
    """The S3 gateway. None: no gateway."""
    s3_auth: str = Field("none", pattern="^(none|sigv4)$")
    """Who may use the gateway: none asks nobody, sigv4 wants signatures by the keys of s3_keys."""
    s3_keys: Path | None = None
    """A file with the keys of the gateway's clients, one a line: ACCESS_KEY SECRET_KEY."""
    s3_domain: str = Field("", pattern=r"^[A-Za-z0-9.-]*$")
    """The gateway's host name: a request to BUCKET.NAME means that bucket. Empty: paths only."""
    admin: Address = "127.0.0.1:7073"
    """Liveness, readiness and metrics."""
    revalidate: Annotated[float, BeforeValidator(parse_revalidate), Field(ge=0)] = 10.0
    """How old a version check may be before the origin is asked again: always, never, or a time."""
    drain_timeout: Seconds = 10.0
    """How long requests under way may take to end after SIGTERM."""
    origin_endpoint: Annotated[str, BeforeValidator(parse_url)] = ""
    """The S3 endpoint's URL. Empty: AWS. Credentials come by the usual AWS chain."""
    origin_gets: int = Field(64, ge=1, le=_MAX_ORIGIN_GETS)
    """GETs to the origin at a time."""
    eviction: str = Field("s3fifo", pattern="^(s3fifo|lru)$")
    """What leaves first: s3fifo or lru."""
    token_file: Path | None = None
    """A file with the secret that every client and node must show."""
    insecure: bool = False
    """Listen off loopback without a token all the same."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.data_dir:
            raise ValueError("data_dir: give at least one directory (--data-dir DIR)")
        if len(set(self.data_dir)) != len(self.data_dir):
            raise ValueError("data_dir: the same directory twice")
        least = MIN_CAPACITY_BYTES * len(self.data_dir)
        if self.capacity < least:
            raise ValueError(
                f"capacity: {self.capacity} bytes are too few for {len(self.data_dir)} data "
                f"director{'y' if len(self.data_dir) == 1 else 'ies'}; give at least {least}"
            )
        if self.unix is not None and len(os.fsencode(self.unix)) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(
                f"unix: the path {str(self.unix)!r} has {len(os.fsencode(self.unix))} bytes,"
                f" {MAX_SOCKET_PATH_BYTES} is the most for a socket: give a shorter one"
            )
        if self.unix_group and self.unix is None:
            raise ValueError("unix_group: there is no Unix lane: give --unix PATH too")
        self._check_gateway()
        open_doors = [a for a in (self.lane, self.grpc) if not is_loopback(a)]
        if open_doors and self.token_file is None and not self.insecure:
            raise ValueError(
                f"{', '.join(open_doors)} can be reached from other machines: "
                "give --token-file FILE, or say --insecure"
            )
        return self

    def _check_gateway(self) -> None:
        for setting in ("s3_keys", "s3_domain"):
            if getattr(self, setting) and self.s3 is None:
                raise ValueError(f"{setting}: there is no S3 gateway: give --s3 HOST:PORT too")
        if (self.s3_auth == "sigv4") != (self.s3_keys is not None):
            raise ValueError("s3_auth sigv4 and s3_keys go together: give both, or neither")
        open_door = self.s3 is not None and not is_loopback(self.s3)
        if open_door and self.s3_auth == "none" and not self.insecure:
            raise ValueError(
                f"s3: {self.s3} can be reached from other machines: "
                "give --s3-auth sigv4 and --s3-keys FILE, or say --insecure"
            )

    def read_token(self) -> str:
        """The cluster's secret, or "".

        Raises:
            ConfigError: the file cannot be read, or is empty.
        """
        if self.token_file is None:
            return ""
        try:
            token = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable("token_file", self.token_file, error) from error
        if not token:
            raise ConfigError(f"token_file: {self.token_file} is empty: write the secret into it")
        return token


class NodeConfig(HostConfig):
    """What one node is told."""

    section = "node"

    members: str = ""
    """Lane addresses of all nodes, this one too: HOST:PORT,... or file:PATH. Empty: alone."""
    weight: int = Field(1, ge=1, le=MAX_WEIGHT)
    """The node's share of the ring, relative to the others."""

    @model_validator(mode="after")
    def _discovered(self) -> Self:
        if self.members.startswith(("dns://", "etcd://")):
            raise ValueError(
                f"members: {self.members!r}: this version knows HOST:PORT,... and file:PATH"
            )
        return self


class SidecarConfig(HostConfig):
    """What one sidecar is told."""

    section = "sidecar"

    capacity: Size = 2 << 30
    """Bytes that block files may take on disk, over all data directories."""
    ring: str = ""
    """Lanes of nodes of the ring, any of them: HOST:PORT,... The others are learned from these."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if not self.ring:
            raise ValueError("ring: give the lane of a node at least (--ring HOST:PORT,...)")
        if self.lane in [part.strip() for part in self.ring.split(",")]:
            raise ValueError(
                f"ring: {self.lane} is the lane of this sidecar itself: give the lanes of nodes;"
                " if a node on this host has that address, give the sidecar another (--lane)"
            )
        return self


Config = TypeVar("Config", bound=HostConfig)


def load(flags: Mapping[str, Any], file: Path | None = None) -> NodeConfig:
    """The settings of a node. `flags`: what the command line gave, by field name; None: not given.

    Raises:
        ConfigError: unknown or impossible settings, or a file that cannot be read.
    """
    return _loaded(NodeConfig, flags, file)


def load_sidecar(flags: Mapping[str, Any], file: Path | None = None) -> SidecarConfig:
    """The settings of a sidecar, as `load` those of a node."""
    return _loaded(SidecarConfig, flags, file)


def _loaded(kind: type[Config], flags: Mapping[str, Any], file: Path | None) -> Config:
    values = _from_file(kind, file) | _from_environment(kind, os.environ)
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(one) for one in error.errors())) from error


def _from_file(kind: type[HostConfig], file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = tomllib.loads(file.read_text())
    except OSError as error:
        raise unreadable("--config", file, error) from error
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read as TOML: {error}") from error
    for section in content:
        if section != kind.section or not isinstance(content[section], dict):
            raise ConfigError(
                f"{file}: unknown section or key {section!r}: settings stand in [{kind.section}]"
            )
    values: dict[str, Any] = content.get(kind.section, {})
    for key in values:
        _check_key(kind, key, f"{file}: [{kind.section}] {key}")
    return values


def _from_environment(kind: type[HostConfig], environment: Mapping[str, str]) -> dict[str, str]:
    values = {}
    prefix = f"CACHESVC_{kind.section.upper()}__"
    for variable, value in environment.items():
        if variable.startswith(prefix):
            key = variable.removeprefix(prefix).lower()
            _check_key(kind, key, f"environment variable {variable}")
            values[key] = value
        elif meant := _meant(kind, variable):
            log.warning(
                "environment variable ignored",
                variable=variable,
                did_you_mean=prefix + meant.upper(),
            )
    return values


def _meant(kind: type[HostConfig], variable: str) -> str:
    """The setting that a variable without our prefix resembles, or ""."""
    if not variable.startswith("CACHESVC_") or variable in _OTHER_VARIABLES:
        return ""
    key = variable.removeprefix("CACHESVC_").lower()
    for written in (key, key.removeprefix(f"{kind.section}_")):
        near = difflib.get_close_matches(written, kind.model_fields, 1, 0.8)
        if near:
            return near[0]
    return ""


def _check_key(kind: type[HostConfig], key: str, where: str) -> None:
    known = kind.model_fields
    if key not in known:
        near = difflib.get_close_matches(key, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"{where}: unknown setting; {hint}")


def _sentence(error: Any) -> str:
    """One error of pydantic in our words. Without a place it comes from `_consistent`."""
    setting = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] != "value_error":
        value = repr(error["input"])
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        return f"{setting}: {shown} will not do: write {_TO_WRITE[setting]}"
    text = str(error["ctx"]["error"])
    return f"{setting}: {text}" if setting else text
