"""`s3://` through the cache: what stands in s3fs's place while it is taken over.

Rules: the cluster reads from one origin. A file system of another endpoint, or with options that
change what is read in a way that the cache does not know, is made by whoever had `s3://` before; if
nobody had, that is an error. So taking over never changes which bytes a program reads.
"""

from __future__ import annotations

from typing import Any

from fsspec.registry import (
    _import_class,
    _registry,
    known_implementations,
    register_implementation,
)

from cachesvc_client.fs.filesystem import CacheFileSystem
from cachesvc_client.fs.settings import UnknownOption, endpoint_of, in_terms_of_origin

PROTOCOLS = ("s3", "s3a")
_installed: dict[str, Any] = {}
_before: dict[str, Any] = {}


class _Chosen(type(CacheFileSystem)):  # type: ignore[misc]
    """Makes the file system that the options ask for."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if not _installed or args or "endpoint" in options:  # unpickled, or asked for by a cluster
            return super().__call__(*args, **options)
        given = endpoint_of(options)
        if given and given != endpoint_of(_installed):
            return _elsewhere(options, f"the endpoint {given} is not that of the cluster's origin")
        try:
            return super().__call__(**{**_installed, **in_terms_of_origin(options, _installed)})
        except UnknownOption as error:
            return _elsewhere(options, str(error))


class S3ThroughCache(CacheFileSystem, metaclass=_Chosen):
    """CacheFileSystem by the name of s3://, with the settings of `install`."""

    protocol: Any = (*PROTOCOLS, "cachesvc")


def take_over(settings: dict[str, Any]) -> None:
    """`s3://` is the cache from now on, with these options of CacheFileSystem."""
    give_back()
    for protocol in PROTOCOLS:
        _before[protocol] = _registry.get(protocol)
        register_implementation(protocol, S3ThroughCache, clobber=True)
    _installed.update({"endpoint": None} | settings)


def give_back() -> None:
    """`s3://` is whose it was. Instances that were made meanwhile go on."""
    for protocol in list(_before):
        before = _before.pop(protocol)
        if before is not None:
            register_implementation(protocol, before, clobber=True)
        else:
            _registry.pop(protocol, None)
    _installed.clear()


def _elsewhere(options: dict[str, Any], why: str) -> Any:
    try:
        before = _before["s3"] or _import_class(known_implementations["s3"]["class"])
    except ImportError as error:
        raise ValueError(
            f"s3:// is the cache here, which cannot serve this: {why}; without s3fs nobody else can"
        ) from error
    return before(**options)
