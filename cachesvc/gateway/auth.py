"""Who may use the gateway: SigV4 in the Authorization header or in a presigned URL, by known keys.

Story: `read_keys` reads a file of keys; `Guard.check` holds a request to the key it names, and
gives the `Seal` that the chunks of its body are held to.

Rules
- Every x-amz-* header of a request must be signed, and so must Host.
- A header's time may be off by MAX_SKEW_S; a presigned URL is good for as long as it says, at most
  a week.
- Signatures are compared in constant time; messages do not tell what the right one would be.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from multidict import CIMultiDict, CIMultiDictProxy

from cachesvc.gateway.aws_chunked import Seal
from cachesvc.gateway.errors import S3Error
from cachesvc.gateway.sigv4 import ALGORITHM, UNSIGNED, Scope, Signable
from cachesvc.gateway.target import Target

MAX_SKEW_S = 900
MAX_EXPIRES_S = 604_800
MAX_KEY_COUNT = 10_000
_HEADER = re.compile(
    rf"{ALGORITHM}\s+Credential=([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{{64}})"
)
_SCOPE = re.compile(r"(.+)/([0-9]{8})/([!-.0-~]+)/s3/aws4_request")

Headers = CIMultiDictProxy[str] | CIMultiDict[str]


class KeyFileError(ValueError):
    """The file of keys cannot be used; the message says why and what to write."""


def read_keys(file: Path) -> dict[str, str]:
    """Secret keys by access key. One pair a line, `#` begins a comment.

    Raises:
        KeyFileError: it cannot be read, holds no key, or a line that is none.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{file} cannot be read: {error}") from error
    keys = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words and len(words) != 2:
            raise KeyFileError(f"{file}, line {number}: write ACCESS_KEY SECRET_KEY")
        if words:
            keys[words[0]] = words[1]
    if not 0 < len(keys) <= MAX_KEY_COUNT:
        raise KeyFileError(f"{file} holds {len(keys)} keys: write 1 to {MAX_KEY_COUNT}")
    return keys


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a request says of its own signature."""

    access_key: str
    scope: Scope
    time: str
    signed_headers: tuple[str, ...]
    signature: str
    payload: str
    presigned: bool


class Guard:
    """Lets in who signs with a known key. keys: secret by access key."""

    def __init__(self, keys: dict[str, str], clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock

    def check(self, method: str, target: Target, headers: Headers) -> Seal | None:
        """The seal that the request's body is held to.

        Raises:
            S3Error: 403 or 400, and why.
        """
        parameters = target.parameters
        if "X-Amz-Signature" in parameters:
            claim = self._presigned(parameters, headers)
        else:
            claim = self._signed(parameters, headers)
        secret = self._keys.get(claim.access_key)
        if secret is None:
            raise S3Error(
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
                {"AWSAccessKeyId": claim.access_key},
            )
        _check_coverage(claim, headers)
        query = target.query
        if claim.presigned:
            query = tuple(pair for pair in query if pair[0] != "X-Amz-Signature")
        signable = Signable(
            method,
            target.signed_path,
            query,
            {name: ",".join(headers.getall(name, [""])) for name in claim.signed_headers},
            claim.payload,
        )
        key = claim.scope.key(secret)
        if not hmac.compare_digest(
            signable.signature(key, claim.time, claim.scope), claim.signature
        ):
            raise S3Error(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided."
                " Check your key and signing method.",
            )
        return Seal(key, claim.time, claim.scope, claim.signature)

    def _signed(self, parameters: dict[str, str], headers: Headers) -> _Claim:
        given = headers.get("Authorization")
        if given is None and {"AWSAccessKeyId", "Signature"} <= parameters.keys():
            raise _denied(
                "the URL is presigned by version 2 of the signature; presign by version 4 (boto3:"
                " Config(signature_version='s3v4'))"
            )
        if given is None:
            raise _denied("the request is not signed")
        match = _HEADER.fullmatch(given.strip())
        if match is None:
            raise _malformed("AuthorizationHeaderMalformed", "write AWS4-HMAC-SHA256 and its parts")
        access_key, scope = _scope(match[1])
        stamp = headers.get("x-amz-date", "")
        payload = headers.get("x-amz-content-sha256")
        if payload is None:
            raise _malformed("InvalidRequest", "Missing required header x-amz-content-sha256")
        if abs(self._clock() - _unix_s(stamp)) > MAX_SKEW_S:
            raise S3Error(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            )
        names = tuple(match[2].split(";"))
        return _claim(access_key, scope, stamp, names, match[3], payload)

    def _presigned(self, parameters: dict[str, str], headers: Headers) -> _Claim:
        if parameters.get("X-Amz-Algorithm") != ALGORITHM:
            raise _malformed("AuthorizationQueryParametersError", f"X-Amz-Algorithm: {ALGORITHM}")
        access_key, scope = _scope(parameters.get("X-Amz-Credential", ""))
        stamp, expires = parameters.get("X-Amz-Date", ""), parameters.get("X-Amz-Expires", "")
        if not (re.fullmatch("[0-9]{1,6}", expires) and int(expires) <= MAX_EXPIRES_S):
            raise _malformed(
                "AuthorizationQueryParametersError", f"X-Amz-Expires: 0 to {MAX_EXPIRES_S}"
            )
        age_s = self._clock() - _unix_s(stamp)
        if age_s > int(expires):
            raise _denied("Request has expired")
        if age_s < -MAX_SKEW_S:
            raise _denied("Request is not valid yet")
        names = tuple(parameters.get("X-Amz-SignedHeaders", "").split(";"))
        said = parameters.get("X-Amz-Content-Sha256", UNSIGNED)
        payload = headers.get("x-amz-content-sha256", said)
        signature = parameters["X-Amz-Signature"]
        if not re.fullmatch("[0-9a-f]{64}", signature):
            raise _malformed("AuthorizationQueryParametersError", "X-Amz-Signature: 64 hex digits")
        return _claim(access_key, scope, stamp, names, signature, payload, presigned=True)


def _claim(
    access_key: str,
    scope: Scope,
    stamp: str,
    names: tuple[str, ...],
    signature: str,
    payload: str,
    *,
    presigned: bool = False,
) -> _Claim:
    if scope.day != stamp[:8]:
        raise _malformed("AuthorizationHeaderMalformed", "the credential is of another day")
    return _Claim(access_key, scope, stamp, names, signature, payload, presigned)


def _check_coverage(claim: _Claim, headers: Headers) -> None:
    signed = set(claim.signed_headers)
    needed = {"host"} | {name.lower() for name in headers if name.lower().startswith("x-amz-")}
    needed -= {"x-amz-content-sha256"} if claim.presigned else set()
    missing = sorted(needed - signed)
    if missing:
        raise S3Error(
            403,
            "AccessDenied",
            "There were headers present in the request which were not signed",
            {"HeadersNotSigned": ", ".join(missing)},
        )


def _scope(credential: str) -> tuple[str, Scope]:
    match = _SCOPE.fullmatch(credential)
    if match is None:
        raise _malformed("AuthorizationHeaderMalformed", "the credential is KEY/DAY/REGION/s3/...")
    return match[1], Scope(match[2], match[3])


def _unix_s(stamp: str) -> float:
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _denied("AWS authentication requires a valid x-amz-date") from None


def _denied(why: str) -> S3Error:
    return S3Error(403, "AccessDenied", f"Access Denied: {why}")


def _malformed(code: str, why: str) -> S3Error:
    return S3Error(400, code, f"The authorization is malformed: {why}")
