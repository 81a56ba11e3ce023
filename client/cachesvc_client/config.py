"""The settings of a client: frozen values, documented field by field, and where its cluster is.

Rules: nothing here does I/O; the environment is read once, when a configuration is made; unknown
settings are refused with the nearest known one; secrets stay out of repr.

Story: `CacheClient(endpoint, ...)` calls `configured`; what comes out pickles, travels to workers
and never changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

DEFAULT_LANE_PORT = 7071
DEFAULT_GRPC_PORT = 7070
_GRPC = "grpc://"
_UNIX = "unix://"
MAX_SOCKET_PATH_BYTES = 107  # the kernel's sockaddr_un has 108, one of them for the end


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Everything that a client can be told. Make one with `configured`.

    Units stand in the names. Raises ValueError for a value that cannot be one.
    """

    endpoints: tuple[str, ...]
    """Where nodes are, any of them: host:port, or unix:///path of one on this host, which is then
    reached that way (name all sockets of the host). Others are learned from these. Required."""

    grpc: bool = False
    """Talk gRPC with the nodes instead of the TCP lane. Default: as the endpoint is written."""

    origin: Mapping[str, Any] | None = field(default=None, repr=False)
    """Where to read if the nodes cannot answer: endpoint_url, region_name, aws_access_key_id,
    aws_secret_access_key, aws_session_token, profile_name, verify, anonymous. Default: the usual
    AWS chain."""

    token: str | None = field(default=None, repr=False)
    """The shared secret of the cluster. Default: CACHESVC_TOKEN, else none."""

    connect_timeout_ms: int = 50
    """A node that takes longer to accept a connection is down. Default 50."""

    resolve_timeout_ms: int = 2000
    """A node whose name takes longer to resolve is down; no name is looked up where an address is
    given. Default 2000."""

    unacknowledged_ms: int = 2000
    """A node whose host acknowledges nothing for so long is down. Default 2000."""

    hello_timeout_ms: int = 5000
    """A node that takes longer to say Welcome is down. Default 5000: a node that is short of
    processors is slow, and not down; one whose host is gone is noticed by unacknowledged_ms."""

    silence_ms: int = 6000
    """A node that sends nothing for so long is down; while it fills, it sends a frame every 500 ms.
    So is one whose answer comes at fewer than 100,000 bytes/s for so long. Default 6000."""

    grpc_stat_ms: int = 10_000
    """How long the answer to a Stat may take over gRPC, where no pending answer says that the node
    lives. Default 10000."""

    eject_ms: int = 5000
    """For how long a node that was down is not asked, or twice what it took to find that out, if
    longer; doubles while it stays down. Default 5000."""

    eject_max_ms: int = 30_000
    """The most that eject_ms doubles to. Default 30000."""

    refresh_ms: int = 1000
    """The least time between two questions for a newer member table. Default 1000."""

    owner_tries: int = 3
    """How many owners of a block are asked before the origin is. Default 3."""

    parallel_count: int = 8
    """How many requests of a client run at a time beside those of the callers. Default 8."""

    restart_count: int = 5
    """How often a read begins again because the object changed meanwhile. Default 5."""

    max_idle_sockets: int = 16
    """How many idle connections are kept for each node. Default 16."""

    version_cache_count: int = 10_000
    """Of how many objects the client remembers the version, for as long as the node allows.
    Default 10000; 0: none."""

    ask_max_bytes: int = 32 << 20
    """The most that one request to a node asks for; it is 256 MiB where files are passed and
    mapped. Default 32 MiB, at most 256 MiB."""

    origin_part_bytes: int = 8 << 20
    """The size of the parts in which the origin is read directly, in parallel. Default 8 MiB."""

    origin_silence_ms: int = 9000
    """An origin read directly that sends nothing for so long has failed. Default 9000."""

    origin_patience_ms: int = 15_000
    """So long after the last good answer a read begins no new attempt: no further node is asked,
    and the origin directly just once. With a silent origin a read so fails within about 30 s: 18 s
    at a node, origin_silence_ms at the origin. Default 15000."""

    file_buffer_bytes: int = 1 << 20
    """The read buffer of a file object. Default 1 MiB."""

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError(
                "no endpoint of a cluster: give one, as in CacheClient('10.0.0.1:7071'), or set"
                " CACHESVC_ENDPOINT"
            )
        for spec in fields(self):
            value = getattr(self, spec.name)
            if spec.type != "int":
                continue
            if not isinstance(value, int) or value < _LEAST.get(spec.name, 1):
                raise ValueError(
                    f"{spec.name} is {value!r}: give an integer of at least"
                    f" {_LEAST.get(spec.name, 1)}"
                )
        if self.ask_max_bytes > 256 << 20:
            raise ValueError(f"ask_max_bytes is {self.ask_max_bytes}: {256 << 20} is the most")


_LEAST = {"restart_count": 0, "version_cache_count": 0, "max_idle_sockets": 0}


def configured(endpoint: str | None = None, **settings: Any) -> ClientConfig:
    """A configuration from an endpoint as users write it, and settings by name.

    endpoint: "host:port,host:port" for the TCP lane, "unix:///path" for the Unix lane of a node on
    this host, "grpc://host:port,..." for gRPC; None takes CACHESVC_ENDPOINT. A setting of None
    means its default.

    Raises:
        ValueError: no endpoint, one that cannot be one, or a value that cannot be one.
        TypeError: an unknown setting.
    """
    known = settings_names()
    for name in settings:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise TypeError(f"unknown setting {name!r} of CacheClient{hint}")
    given = {name: value for name, value in settings.items() if value is not None}
    given.setdefault("token", os.environ.get("CACHESVC_TOKEN") or None)
    endpoints, grpc = _endpoints(endpoint or os.environ.get("CACHESVC_ENDPOINT", ""))
    return ClientConfig(endpoints, grpc, **given)


def settings_names() -> list[str]:
    """The settings that `configured` takes."""
    return [spec.name for spec in fields(ClientConfig) if spec.name not in ("endpoints", "grpc")]


def _endpoints(text: str) -> tuple[tuple[str, ...], bool]:
    grpc = text.startswith(_GRPC)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if grpc:
        parts = [part.removeprefix(_GRPC) for part in parts]
    port = DEFAULT_GRPC_PORT if grpc else DEFAULT_LANE_PORT
    return tuple(
        _socket(part) if is_local(part) and not grpc else address(part, port) for part in parts
    ), grpc


def origin_url(named: str | None) -> str:
    """The S3 endpoint of that name, else the environment's, without a slash at its end, in lower
    case; "" for AWS itself.
    """
    found = named or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return (found or "").rstrip("/").lower()


def is_local(endpoint: str) -> bool:
    """Whether an endpoint is the socket of a node on this host."""
    return endpoint.startswith(_UNIX)


def socket_path(endpoint: str) -> str:
    """The path of a unix:// endpoint."""
    return endpoint.removeprefix(_UNIX)


def _socket(endpoint: str) -> str:
    path = socket_path(endpoint)
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"endpoint {endpoint!r}: write unix:///path, with an absolute path")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"endpoint {endpoint!r}: the path has {len(os.fsencode(path))} bytes,"
            f" {MAX_SOCKET_PATH_BYTES} is the most for a socket"
        )
    return endpoint


def address(text: str, default_port: int) -> str:
    """host:port, checked, with the default port where there is none.

    Raises:
        ValueError: it is none.
    """
    if "://" in text or "/" in text or not text:
        raise ValueError(
            f"endpoint {text!r} is not host:port: write host:port, unix:///path or grpc://host:port"
        )
    if re.search(r"\s", text):
        raise ValueError(f"endpoint {text!r}: there is white space in it; write host:port")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default_port)
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(
            f"endpoint {text!r}: {port!r} is no port, a number from 1 to 65535; write host:port"
        )
    return f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """An address as host and port; the brackets of IPv6 are taken off."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
