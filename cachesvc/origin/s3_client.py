"""How to reach S3: the settings, and the client and TLS context made from them.

Rules: nothing here does network I/O; retries and proxies of botocore are off, because `s3.S3Origin`
retries itself and the fill threads know no proxies; checksums only where S3 demands them, because
many S3-like stores have none.
"""

from __future__ import annotations

import os
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.httpsession import get_cert_path

MAX_STREAM_COUNT = 32  # bypasses at a time; the pool has room for HEADs beside them


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How to reach S3.

    endpoint_url: None is AWS (or AWS_ENDPOINT_URL). region: None takes the usual AWS settings, then
    us-east-1. max_gets: fill threads, and GETs at a time. connect_timeout_ms: for one
    connection, TLS included. read_timeout_ms: the longest silence within an answer. attempts: GETs
    in a row that may fail before OriginError. patience_ms: so long after the last progress no
    attempt begins any more, so that a silent origin costs two attempts, 18 s, and not four.
    anonymous: sign nothing, for public buckets. max_signed_urls: how many are kept.
    """

    endpoint_url: str | None = None
    region: str | None = None
    max_gets: int = 64
    connect_timeout_ms: int = 2_000
    read_timeout_ms: int = 9_000
    attempts: int = 4
    patience_ms: int = 10_000
    anonymous: bool = False
    max_signed_urls: int = 4096

    def __post_init__(self) -> None:
        for field in (
            "max_gets",
            "connect_timeout_ms",
            "read_timeout_ms",
            "attempts",
            "patience_ms",
            "max_signed_urls",
        ):
            if getattr(self, field) < 1:
                raise ValueError(f"S3 setting {field} is {getattr(self, field)}: give 1 or more")


async def open_client(session: AioSession, settings: S3Settings, exits: AsyncExitStack) -> Any:
    """A client of aiobotocore, closed by `exits`. The region: settings, AWS configuration,
    AWS_REGION, us-east-1.
    """
    region = settings.region or session.get_config_variable("region")
    options: dict[str, Any] = {
        "region_name": region or os.environ.get("AWS_REGION") or "us-east-1",
        "endpoint_url": settings.endpoint_url,
    }
    client = await exits.enter_async_context(
        session.create_client("s3", config=_client_config(settings, None), **options)
    )
    if ".amazonaws.com" in client.meta.endpoint_url:  # else it signs for the global endpoint
        client = await exits.enter_async_context(
            session.create_client("s3", config=_client_config(settings, "virtual"), **options)
        )
    return client


def _client_config(settings: S3Settings, addressing: str | None) -> AioConfig:
    return AioConfig(
        signature_version=UNSIGNED if settings.anonymous else "s3v4",
        connect_timeout=settings.connect_timeout_ms / 1000,
        read_timeout=settings.read_timeout_ms / 1000,
        max_pool_connections=MAX_STREAM_COUNT + max(10, settings.max_gets),
        retries={"total_max_attempts": 1, "mode": "standard"},
        proxies={},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": addressing} if addressing else None,
        user_agent_extra="cachesvc",
    )


def tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """The system's authorities, or those of AWS_CA_BUNDLE alone; those of botocore where the system
    has none.
    """
    context = ssl.create_default_context(cafile=ca_bundle)
    if not ca_bundle and not context.cert_store_stats()["x509_ca"]:
        context.load_verify_locations(get_cert_path(True))
    return context
