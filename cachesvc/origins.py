"""What stands behind a node or a sidecar: S3, or the ring and S3 behind that.

With app.py the only one to name concrete origins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog
from botocore.exceptions import BotoCoreError

from cachesvc.config import ConfigError, HostConfig, SidecarConfig
from cachesvc.core.errors import NoCredentials, OriginError, Unauthenticated
from cachesvc.core.types import Geometry
from cachesvc.membership.cluster import Cluster
from cachesvc.metrics import Metrics
from cachesvc.origin.base import Origin
from cachesvc.origin.probe import Heard
from cachesvc.origin.s3 import S3Origin
from cachesvc.origin.s3_client import S3Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Origins:
    """origin: what misses go to. s3: the object store itself, last behind it. ring: the lanes of
    the ring between the two; None: there is none.
    """

    origin: Origin
    s3: S3Origin
    ring: Callable[[], Sequence[str]] | None = None


async def open_origins(
    config: HostConfig,
    me: str,
    geometry: Geometry,
    metrics: Metrics,
    heard: Heard | None,
    exits: AsyncExitStack,
) -> Origins:
    """Started, and closed by `exits`. me: the node's id. heard: see S3Origin.

    Raises:
        ConfigError: the endpoint, the credentials of the object store, or the ring.
    """
    settings = S3Settings(endpoint_url=config.origin_endpoint or None, max_gets=config.origin_gets)
    s3 = S3Origin(settings, metrics, heard=heard)
    exits.push_async_callback(s3.close)
    try:
        await s3.start()
    except (ValueError, BotoCoreError) as error:
        raise ConfigError(f"origin-endpoint: {error}") from error
    if not isinstance(config, SidecarConfig):
        return Origins(s3, s3)
    # with it comes the client, which no node needs
    from cachesvc.origin.ring import RingOrigin, ring_config

    try:
        reached = ring_config(config.ring, config.read_token(), config.origin_gets, geometry)
    except ValueError as error:
        raise ConfigError(f"ring: {error}") from error
    ring = RingOrigin(me, reached, geometry, s3, metrics, config.origin_gets)
    exits.push_async_callback(ring.close)
    try:
        await ring.start()
    except Unauthenticated as error:
        raise ConfigError(
            f"token_file: the ring refuses this sidecar ({error}): give it the file of the ring's"
            " nodes by --token-file"
        ) from error
    return Origins(ring, s3, lambda: ring.addresses)


async def tell_credentials(s3: S3Origin, cluster: Cluster) -> None:
    """Say it, in the log and to whoever says Hello, if this node has no credentials: its readers
    get along without it, and nobody would notice.
    """
    try:
        await s3.check_credentials()
    except OriginError as error:
        log.warning("this node cannot read S3", why=str(error))
        if isinstance(error, NoCredentials):  # else they may come yet
            cluster.trouble = str(error)
    except Exception:
        log.exception("whether this node has credentials could not be found out")
