"""The thin client of cachesvc: hot data of S3 from a ring of nodes, or from S3 itself.

Story: `CacheClient` is all that most programs need; the errors are those of every part of cachesvc,
all under CacheError, which is an OSError. `install` has boto3, aiobotocore and fsspec read S3
through the cache; cachesvc_client.fs and cachesvc_client.tensors need more than the thin client,
and are imported by name.
"""

from __future__ import annotations

from cachesvc.core.errors import (
    AccessDenied,
    CacheError,
    CorruptAnswer,
    InternalError,
    InvalidKey,
    NoCredentials,
    NodeUnavailable,
    NotCacheable,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    Overloaded,
    ProtocolError,
    RangeError,
    Unauthenticated,
)
from cachesvc_client.client import CacheClient, ObjectStat
from cachesvc_client.config import ClientConfig
from cachesvc_client.engine import ClientClosed
from cachesvc_client.install import install, uninstall
from cachesvc_client.intercept.stats import Intercepted, intercepted
from cachesvc_client.limits import RegionRefused
from cachesvc_client.pinned import PinnedObject
from cachesvc_client.region import Region

__all__ = [
    "AccessDenied",
    "CacheClient",
    "CacheError",
    "ClientClosed",
    "ClientConfig",
    "CorruptAnswer",
    "Intercepted",
    "InternalError",
    "InvalidKey",
    "NoCredentials",
    "NodeUnavailable",
    "NotCacheable",
    "ObjectChanged",
    "ObjectNotFound",
    "ObjectStat",
    "OriginError",
    "Overloaded",
    "PinnedObject",
    "ProtocolError",
    "RangeError",
    "Region",
    "RegionRefused",
    "Unauthenticated",
    "install",
    "intercepted",
    "uninstall",
]
