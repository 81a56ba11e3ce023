"""`install` and `uninstall`: programs that read S3 by boto3, aiobotocore or fsspec read the cache,
unchanged.

Story: two doors. botocore's (boto3, s3transfer, aiobotocore, s3fs) by interception of its reads;
fsspec's `s3://` by a file system in s3fs's place. `install` opens both; with CACHESVC_INTERCEPT=1
in the environment `cachesvc.startup` opens each as soon as its library is imported.

Rules: botocore and fsspec are imported by the call, not before. What was installed can be taken
back; calling either twice is the same as calling it once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

SWITCH = "CACHESVC_INTERCEPT"
OFF = ("0", "false", "no", "off")  # as in cachesvc.startup, which imports nothing
BUCKETS = "CACHESVC_BUCKETS"
SHADOW = "CACHESVC_SHADOW"

log = logging.getLogger(__name__)


def install(
    endpoint: str | None = None,
    *,
    origin: Mapping[str, Any] | None = None,
    token: str | None = None,
    buckets: Sequence[str] | None = None,
    shadow: float | None = None,
    **settings: Any,
) -> None:
    """From now on, in this process and those forked from it, S3 clients of boto3 and aiobotocore
    read objects through the cluster, also clients that are there already (but for those that
    `gc.freeze` hid before the first call), and fsspec opens `s3://`
    and `s3a://` through it. Nothing happens where CACHESVC_INTERCEPT is 0.

    buckets: those to read through the cache, `bucket` or `bucket/prefix`, with * and ? in the
    bucket's name; default CACHESVC_BUCKETS (with commas), else all. shadow: the share of GETs, 0 to
    1, that are answered by S3 and compared with the cache; default CACHESVC_SHADOW, else 0. With
    either, fsspec's `s3://` stays with s3fs, whose reads by aiobotocore are intercepted like any.
    The others, and `settings`, are those of CacheClient.

    What names another S3 endpoint than the cluster's, or asks for what the cache does not know
    (versions, requester pays, encryption keys), goes to S3 as before. Raises ImportError without
    botocore and fsspec, ValueError for a share or a bucket that is none, and what CacheClient
    raises for its settings.
    """
    if os.environ.get(SWITCH, "").lower() in OFF:
        log.info("%s=%s: nothing is installed", SWITCH, os.environ[SWITCH])
        return
    given = {"endpoint": endpoint, "origin": dict(origin) if origin else None, "token": token}
    wanted = _wanted(buckets, shadow, given | settings)
    doors = [open_door for name, open_door in DOORS.items() if find_spec(name)]
    if not doors:
        raise ImportError("install needs botocore or fsspec: pip install '.[s3]' in a clone")
    _disarm()  # the environment has no say any more, whatever is imported from now on
    for open_door in doors:
        open_door(wanted)


def uninstall() -> None:
    """Clients of botocore, and `s3://`, are as they were before `install`; bodies that are being
    read and file systems that were made meanwhile go on.
    """
    _disarm()
    for name in ("cachesvc_client.intercept.hooks", "cachesvc_client.fs.s3"):
        if name in sys.modules:
            sys.modules[name].give_back()


def _disarm() -> None:
    startup = sys.modules.get("cachesvc.startup")
    if startup is not None:
        startup.disarm()


def install_from_environment(door: str) -> None:
    """Open one door, "botocore" or "fsspec", with the settings of the environment; a failure is
    logged and changes nothing.
    """
    try:
        DOORS[door](_wanted(None, None, {}))
    except Exception as error:
        log.error("%s=1 has no effect on %s: %s", SWITCH, door, error)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to install. settings: of CacheClient, those given."""

    buckets: tuple[str, ...]
    shadow: float
    settings: dict[str, Any] = field(repr=False)


def _wanted(
    buckets: Sequence[str] | None, shadow: float | None, settings: Mapping[str, Any]
) -> _Wanted:
    from cachesvc_client.client import CacheClient
    from cachesvc_client.intercept.request import buckets_of

    if isinstance(buckets, str):
        raise ValueError(f"buckets is {buckets!r}: give a list of names")
    written = os.environ.get(BUCKETS, "") if buckets is None else ",".join(buckets)
    share = os.environ.get(SHADOW, "") or "0" if shadow is None else shadow
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"the share of shadow reads is {share!r}: give a number from 0 to 1")
    known = {name: value for name, value in settings.items() if value is not None}
    CacheClient(**known).close()
    return _Wanted(buckets_of(written), number, known)


def _intercept(wanted: _Wanted) -> None:
    from cachesvc_client.client import CacheClient
    from cachesvc_client.config import origin_url
    from cachesvc_client.intercept import hooks
    from cachesvc_client.intercept.interceptor import Interception
    from cachesvc_client.intercept.request import Place

    cache = CacheClient(**wanted.settings)
    named = (cache.config.origin or {}).get("endpoint_url")
    place = Place(origin_url(named), wanted.buckets)
    hooks.take_over(Interception(cache, place, wanted.shadow))


def _take_s3(wanted: _Wanted) -> None:
    from cachesvc_client.fs import s3

    if wanted.buckets or wanted.shadow:
        s3.give_back()  # to s3fs, from an earlier `install`
    else:
        s3.take_over(wanted.settings)


DOORS = {"botocore": _intercept, "fsspec": _take_s3}
