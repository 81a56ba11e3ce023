"""From what S3 and its client library say to the errors of cachesvc.

Rules: one place decides what an HTTP status or an exception of botocore means and whether trying
again may help; every message names the object, the origin, the cause and what to do. Pure.

Story: HEAD answers carry no body, so S3's own code is often missing, and the status must be enough.
GETs of the fill threads come here as status and code, calls through aiobotocore as exceptions.
"""

from __future__ import annotations

import re

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as NoConnection,
)

from cachesvc.core.errors import (
    AccessDenied,
    CacheError,
    InvalidKey,
    NoCredentials,
    ObjectNotFound,
    OriginError,
)

RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
RESIGNED_STATUS = frozenset({301, 307, 400, 403})  # a signature too old, or for another region
_BAD_NAME_CODES = frozenset({"InvalidBucketName", "KeyTooLongError", "InvalidURI"})
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")

TROUBLE = (HTTPClientError, NoConnection, aiohttp.ClientError, OSError, TimeoutError)
# What a call of aiobotocore may raise; ValueError: an answer that it could not make sense of.
CALL_ERRORS = (BotoCoreError, ClientError, ValueError, *TROUBLE)


def status_of(error: Exception) -> int:
    """The HTTP status in an exception of aiobotocore, 0 if no answer came."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed a moment later."""
    if isinstance(error, ClientError):
        return status_of(error) in RETRIED_STATUS
    return isinstance(error, TROUBLE) and not isinstance(error, CacheError)


def of_exception(error: Exception, what: str, bucket: str, endpoint: str) -> CacheError:
    """The error for an exception of aiobotocore. what: the object's or bucket's URI."""
    if isinstance(error, CacheError):
        return error
    if isinstance(error, ClientError):
        told = error.response.get("Error", {})
        code, message = str(told.get("Code", "")), str(told.get("Message", ""))
        return of_status(status_of(error), code, message, what, bucket, endpoint)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return no_credentials(what)
    if isinstance(error, ParamValidationError):
        return InvalidKey(f"{what}: no S3 object can have that name: {_line(str(error))}")
    if isinstance(error, BotoCoreError) and not isinstance(error, TROUBLE):
        return OriginError(f"{what}: the origin {endpoint} failed: {_line(str(error))}")
    return OriginError(f"{what}: no answer from the origin {endpoint}: {cause(error)}")


def no_credentials(what: str) -> NoCredentials:
    """The error where there is nothing to sign with. what: the object, or the origin."""
    return NoCredentials(
        f"{what}: no AWS credentials were found on this node: set AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY, a profile or a role, and start it again"
    )


def of_status(
    status: int, code: str, message: str, what: str, bucket: str, endpoint: str
) -> CacheError:
    """The error for an answer with an error status."""
    said = f"{status} {_line(f'{code} {message}')}".strip()
    if status == 404:
        return ObjectNotFound(f"{what}: the origin has no such bucket or key")
    if status in (401, 403):
        return AccessDenied(
            f"{what}: the origin {endpoint} refuses access ({said}): check the credentials, and"
            " that they may get the object and list the bucket"
        )
    if code in _BAD_NAME_CODES or (status == 400 and not _BUCKET_NAME.fullmatch(bucket)):
        return InvalidKey(f"{what}: no S3 object can have that name ({said})")
    advice = ""
    if status in (301, 307, 400):
        advice = ": check the region, the endpoint and the credentials"
    return OriginError(f"{what}: the origin {endpoint} answers {said}{advice}")


def cause(error: Exception) -> str:
    """What an exception says, in one line."""
    return _line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
