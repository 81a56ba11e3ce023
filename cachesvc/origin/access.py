"""How S3 is reached by whoever speaks HTTP to it himself: endpoint, region, credentials, trust."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credentials:
    """What requests are signed with at this moment. token: of a session, or ""."""

    access_key: str
    secret_key: str
    token: str


@dataclass(frozen=True, slots=True)
class S3Access:
    """endpoint_url: without a path. region: of the endpoint. credentials: None signs nothing."""

    endpoint_url: str
    region: str
    credentials: Credentials | None
    tls: ssl.SSLContext
