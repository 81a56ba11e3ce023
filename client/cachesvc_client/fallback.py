"""Reading from S3 itself, when no node can answer: botocore's sync client, bytes straight in place.

Rules: botocore is imported and its client made when the origin is first needed, never before;
If-Match wherever a strong version is named; Content-Range, length and ETag are held to what was
asked, so there is no short answer and no mixture; a body that comes too slowly (pace.py) counts as
cut; each call is one HEAD or one GET.

Retries are made here and not by botocore, which knows no limit in time: what may pass is asked for
again TRIES times in all, with a random pause (full jitter) between; while the origin is silent, no
attempt begins after the patience that the read has left. The name that a request goes to is
looked up before it is sent, within RESOLVE_S: urllib3's own lookup, which knows no limit, then
finds a resolver that answers. Behind a proxy, names are the proxy's.

Story: `ask` performs effects.AskOrigin. The script cuts what is large into parts and sends them
here on several threads at a time, which is how every S3 library gets its speed.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from cachesvc import names
from cachesvc.core.errors import (
    AccessDenied,
    CacheError,
    InvalidKey,
    NoCredentials,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    RangeError,
)
from cachesvc.core.promise import promised
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion, Source
from cachesvc_client import forks
from cachesvc_client.effects import AskOrigin, Reply, Target
from cachesvc_client.pace import TOO_SLOW, Pace
from cachesvc_client.receipt import same_version

_NO_BOTOCORE = "direct reads of S3 need botocore: pip install '.[s3]' in a clone"
_NO_CREDENTIALS = (
    "no AWS credentials were found: give origin={'aws_access_key_id': ...,"
    " 'aws_secret_access_key': ...}, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_SESSION_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_BY_DEFAULT = " (AWS: neither endpoint_url nor AWS_ENDPOINT_URL names another)"
_OTHER_KEYS = ("endpoint_url", "region_name", "profile_name", "verify", "anonymous")
TRIES = 4
RESOLVE_S = 5.0  # what a name may take; beyond, the attempt has failed
_PIECE_BYTES = 256 << 10  # of a body, received at a time
_PAUSE_S = 0.1  # at most, after the first failure; doubles
_PASSING_STATUS = frozenset({429, 500, 502, 503, 504})
_HOPELESS_S = 30.0  # after no credentials were found, do not look for them again for so long


def check_settings(origin: Mapping[str, Any] | None) -> None:
    """Raises ValueError for a setting that is unknown, or an endpoint that is no URL."""
    if isinstance(origin, str):
        raise ValueError(f"origin= is a dict: write origin={{'endpoint_url': {origin!r}}}")
    url = (origin or {}).get("endpoint_url")
    if url and not re.match("https?://.", url):
        raise ValueError(f"endpoint_url is {url!r}: write http://HOST:PORT or https://HOST:PORT")
    for key in origin or ():
        if key not in _SESSION_KEYS + _OTHER_KEYS:
            known = ", ".join(_OTHER_KEYS + _SESSION_KEYS)
            raise ValueError(f"origin= has an unknown setting {key!r}; known are {known}")


class _Again(OriginError):
    """Not the answer that was asked for, or none: asking again may help."""


class _Cut(_Again):
    """Not all of the answer: the origin is slow or broken, and not silent."""


class Fallback:
    """The origin, as one client reads it directly. Any thread may use it."""

    def __init__(
        self, origin: Mapping[str, Any] | None, connection_count: int, silence_ms: int
    ) -> None:
        self._settings = dict(origin or {})
        self._silence_ms = silence_ms
        self._connection_count = connection_count
        self._client: Any = None
        self._closed = False
        self._hopeless: tuple[float, CacheError] | None = None
        self._lock = Lock()

    def ask(self, wanted: AskOrigin) -> Reply:
        """The contract of effects.AskOrigin."""
        client = self._made()
        patient_until_s = time.monotonic() + wanted.patience_s
        for failures in range(1, TRIES):
            try:
                return self._once(client, wanted)
            except _Again as error:
                if time.monotonic() >= patient_until_s and not isinstance(error, _Cut):
                    raise
            time.sleep(random.random() * _PAUSE_S * 2 ** (failures - 1))
        return self._once(client, wanted)

    def call(self, where: str, operation: str, **parameters: Any) -> Any:
        """Any operation of S3, by botocore's name of it, tried as reads are, patiently.

        where: for messages. Returns what botocore returns; raises one of our errors. What is tried
        again may have been done already: callers tell what that means (fs/writing.py).
        """
        client = self._made()
        for failures in range(1, TRIES):
            try:
                with self._errors(where):
                    return getattr(client, operation)(**parameters)
            except _Again:
                time.sleep(random.random() * _PAUSE_S * 2 ** (failures - 1))
        with self._errors(where):
            return getattr(client, operation)(**parameters)

    def close(self) -> None:
        with self._lock:
            client, self._client, self._closed = self._client, None, True
        if client is not None:
            client.close()

    def _once(self, client: Any, wanted: AskOrigin) -> Reply:
        with self._errors(wanted.name):
            if wanted.target is None:
                return self._head(client, wanted.name)
            return self._get(client, wanted, wanted.target)

    def _head(self, client: Any, name: ObjectName) -> Reply:
        answer = client.head_object(Bucket=name.bucket, Key=name.key)
        return Reply(_version(name, answer, answer.get("ContentLength")))

    def _get(self, client: Any, wanted: AskOrigin, target: Target) -> Reply:
        name, version = wanted.name, wanted.version
        options = {"Bucket": name.bucket, "Key": name.key}
        if wanted.start or wanted.end is not None:
            last = "" if wanted.end is None else wanted.end - 1
            options["Range"] = f"bytes={wanted.start}-{last}"
        if version is not None and version.cacheable:
            options["IfMatch"] = version.etag
        answer = client.get_object(**options)
        with answer["Body"] as raw:
            found, coming = _promised(wanted, answer)
            if version is None:
                target.begin(found)
            elif not same_version(found, version):
                raise ObjectChanged(f"{name}: version {version.etag} is gone from the origin")
            _receive(name, raw, coming, target, Pace(self._silence_ms / 1000))
        return Reply(found, sources={Source.ORIGIN: coming.length_bytes})

    # -- the client

    def _made(self) -> Any:
        if self._client is not None:
            return self._client
        with self._lock:
            if self._closed:
                raise OriginError("the client is closed")
            if self._hopeless is not None and time.monotonic() < self._hopeless[0]:
                raise type(self._hopeless[1])(str(self._hopeless[1]))
            if self._client is None:
                try:
                    self._client = self._make()
                except CacheError as error:
                    self._hopeless = time.monotonic() + _HOPELESS_S, error
                    raise
            return self._client

    def _make(self) -> Any:
        try:
            with forks.held_off():
                from botocore import UNSIGNED
                from botocore.config import Config
                from botocore.exceptions import BotoCoreError
                from botocore.session import Session
        except ImportError as error:
            raise OriginError(_NO_BOTOCORE) from error
        given = self._settings
        try:
            session = Session(profile=given.get("profile_name"))
            region = given.get("region_name") or session.get_config_variable("region")
            keys = {key: given[key] for key in _SESSION_KEYS if given.get(key)}
            anonymous = bool(given.get("anonymous"))
            if not anonymous and not keys and session.get_credentials() is None:
                raise NoCredentials(_NO_CREDENTIALS)
            config = Config(
                signature_version=UNSIGNED if anonymous else "s3v4",
                connect_timeout=2,
                read_timeout=self._silence_ms / 1000,
                max_pool_connections=max(10, 2 * self._connection_count),
                retries={"total_max_attempts": 1, "mode": "standard"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                user_agent_extra="cachesvc",
            )
            client = session.create_client(
                "s3",
                region_name=region or os.environ.get("AWS_REGION") or "us-east-1",
                endpoint_url=given.get("endpoint_url"),
                verify=given.get("verify"),
                config=config,
                **keys,
            )
            if not _has_proxy(client.meta.endpoint_url):
                client.meta.events.register("before-send.s3", _resolve)
            return client
        except (BotoCoreError, ValueError) as error:
            raise OriginError(f"the origin's settings do not do: {error}") from error

    # -- errors

    def _origin(self, error: BaseException) -> str:
        """The origin, by its URL where the error does not name it, in words."""
        client = self._client  # another thread may close it
        url = urlsplit("" if client is None else client.meta.endpoint_url)
        host = url.netloc.rpartition("@")[2]  # without a password
        if not host or host in str(error):
            return "the origin"
        by_default = host.endswith(".amazonaws.com")
        return f"the origin {url.scheme}://{host}{_BY_DEFAULT if by_default else ''}"

    @contextmanager
    def _errors(self, name: ObjectName | str) -> Iterator[None]:
        """What botocore raises, as one of ours."""
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            HTTPClientError,
            NoCredentialsError,
            ParamValidationError,
        )
        from botocore.exceptions import ConnectionError as NoConnection

        try:
            yield
        except CacheError:
            raise
        except ClientError as error:
            raise _of_answer(name, error.response) from error
        except NoCredentialsError as error:
            raise NoCredentials(f"{name}: {_NO_CREDENTIALS}") from error
        except ParamValidationError as error:
            why = " ".join(str(error).split())[:300]
            raise InvalidKey(f"{name}: no S3 object can have that name: {why}") from error
        except (HTTPClientError, NoConnection, OSError) as error:
            raise _Again(f"{name}: {self._origin(error)} failed: {error}") from error
        except (BotoCoreError, ValueError) as error:
            raise OriginError(f"{name}: {self._origin(error)} failed: {error}") from error


def _has_proxy(url: str) -> bool:
    from botocore.utils import get_environ_proxies

    return urlsplit(url).scheme in get_environ_proxies(url)


def _resolve(request: Any, **_: Any) -> None:
    """Before a request is sent. Raises what the attempt then fails with, as `addresses_of`."""
    parts = urlsplit(request.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    names.addresses_of(parts.hostname or "", port, RESOLVE_S)


def _of_answer(name: ObjectName | str, response: Mapping[str, Any]) -> CacheError:
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    told = response.get("Error", {})
    said = f"{status} {told.get('Code', '')} {told.get('Message', '')}".strip()
    if status == 404:
        return ObjectNotFound(f"{name}: the origin has no such bucket or key")
    if status in (401, 403):
        return AccessDenied(f"{name}: the origin refuses access ({said}): check the credentials")
    if status == 412:
        return ObjectChanged(f"{name}: the version that was asked for is gone from the origin")
    if status == 416:
        return RangeError(f"{name}: the origin has no bytes in that range")
    kind = _Again if status in _PASSING_STATUS else OriginError
    return kind(f"{name}: the origin answers {said}")


def _version(name: ObjectName, answer: Mapping[str, Any], size_bytes: Any) -> ObjectVersion:
    modified = answer.get("LastModified")
    modified_ms = int(modified.timestamp() * 1000) if modified is not None else 0
    try:
        return ObjectVersion(name, answer.get("ETag") or "", size_bytes, modified_ms)
    except (ValueError, TypeError) as error:
        raise OriginError(f"{name}: the origin's answer makes no sense: {error}") from error


def _promised(wanted: AskOrigin, answer: Mapping[str, Any]) -> tuple[ObjectVersion, ByteRange]:
    """The version and range that an answer promises; OriginError if not those asked for."""
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    told, length_bytes = answer.get("ContentRange"), answer.get("ContentLength")
    asked = wanted.start, wanted.end
    try:
        size_bytes, coming = promised(wanted.name, asked, status, told, length_bytes)
    except RangeError:
        raise
    except ValueError as error:
        raise _Again(str(error)) from error
    return _version(wanted.name, answer, size_bytes), coming


def _receive(name: ObjectName, body: Any, coming: ByteRange, target: Target, pace: Pace) -> None:
    """body: urllib3's; its read1 alone comes back with what is there."""
    view = target.view(coming.start, coming.length_bytes)
    received_bytes = 0
    why: Exception | str = "the connection was cut"
    try:
        while received_bytes < len(view):
            asked_s = time.monotonic()
            piece = body.read1(min(_PIECE_BYTES, len(view) - received_bytes))
            if not piece:
                break
            view[received_bytes : received_bytes + len(piece)] = piece
            received_bytes += len(piece)
            pace.came(len(piece), time.monotonic() - asked_s)
            pace.settle()
            if pace.too_slow:
                why = TOO_SLOW
                break
    except Exception as error:  # whatever botocore, urllib3 or the socket call it
        why = error
    if received_bytes < len(view):
        kind = _Cut if received_bytes else _Again
        raise kind(f"{name}: {received_bytes} of {len(view)} bytes came from the origin: {why}")
