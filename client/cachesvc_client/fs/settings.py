"""The options of a file system: the client's own, and those that s3fs has for the same things.

Rules: an option that is neither understood nor harmless to leave out is refused by name; nothing
that changes which bytes are read is ever ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cachesvc_client.config import origin_url

_OF_S3FS = {
    "key": "aws_access_key_id", "username": "aws_access_key_id", "secret": "aws_secret_access_key",
    "password": "aws_secret_access_key", "token": "aws_session_token", "anon": "anonymous",
    "endpoint_url": "endpoint_url", "profile": "profile_name", "region_name": "region_name",
}  # fmt: skip
_CLIENT_KWARGS = (
    "endpoint_url", "region_name", "verify", "aws_access_key_id", "aws_secret_access_key",
    "aws_session_token",
)  # fmt: skip
_WITHOUT_EFFECT = {  # how s3fs reads, and not what
    "config_kwargs", "use_ssl", "default_fill_cache", "cache_regions", "max_concurrency",
    "fixed_upload_size", "use_listings_cache", "listings_expiry_time", "max_paths",
    "skip_instance_cache",
}  # fmt: skip


class UnknownOption(TypeError):
    """An option that the cache does not know, and must not ignore."""


def split_options(
    options: Mapping[str, Any], known: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options as settings of CacheClient, whose names are `known`, and as those of its `origin=`.

    Raises UnknownOption (a TypeError) for any other.
    """
    client, origin = {}, {}
    for name, value in options.items():
        if name in known:
            client[name] = value
        elif name == "client_kwargs":
            for inner, given in (value or {}).items():
                if inner not in _CLIENT_KWARGS:
                    raise UnknownOption(f"client_kwargs has {inner!r}, which the cache cannot heed")
                origin[inner] = given
        elif name in _OF_S3FS:
            if value not in (None, False):
                origin[_OF_S3FS[name]] = value
        elif value and name not in _WITHOUT_EFFECT:
            raise UnknownOption(
                f"option {name!r} is none that the cache can heed: leave it out, or open this with"
                " s3fs (cachesvc_client.uninstall gives s3:// back to it)"
            )
    return client, origin


def in_terms_of_origin(options: Mapping[str, Any], installed: Mapping[str, Any]) -> dict[str, Any]:
    """Options as s3fs takes them, in which `token` is the session's and not the cluster's."""
    found = dict(options)
    session_token = found.pop("token", None)
    _, origin = split_options({k: v for k, v in found.items() if k in _OF_S3FS}, ())
    for name in _OF_S3FS:
        found.pop(name, None)
    if session_token:
        origin["aws_session_token"] = session_token
    return {**found, "origin": {**(installed.get("origin") or {}), **origin} or None}


def endpoint_of(options: Mapping[str, Any]) -> str:
    """The S3 endpoint that options name, or the environment does; "" for AWS itself."""
    inner = options.get("client_kwargs") or {}
    origin = options.get("origin") or {}
    named = options.get("endpoint_url") or inner.get("endpoint_url") or origin.get("endpoint_url")
    return origin_url(named)
