"""Requests sent on to the origin: the same request, signed with the node's own credentials.

Rules
- Path and query are the client's, byte for byte once decoded; header fields too, but for those that
  belong to one connection or to the client's own signature.
- Bodies are streamed, with a connection of their own: a request whose body has begun to flow cannot
  be sent again.
- The answer is the origin's, whatever it is. Redirects are not followed.
- On AWS a bucket is asked where it is, once: a signature is for one region.

Story: `open` signs (sigv4), sends, and gives the origin's answer while it is being received.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from botocore.exceptions import BotoCoreError
from multidict import CIMultiDict
from yarl import URL

from cachesvc.core.errors import OriginError
from cachesvc.gateway.errors import slow_down
from cachesvc.gateway.operation import is_auth
from cachesvc.gateway.sigv4 import ALGORITHM, UNSIGNED, Scope, Signable
from cachesvc.gateway.target import Pairs, Target, wire_query
from cachesvc.metrics import Metrics
from cachesvc.origin.access import S3Access

MAX_REQUEST_COUNT = 256  # passed at a time
MAX_BUCKET_COUNT = 10_000  # whose regions are known
CONNECT_S = 5.0
SILENCE_S = 60.0
KEEP_IDLE_S = 4.0
_READ_BYTES = 256 << 10

_OF_ONE_CONNECTION = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "host",
    ]
)
_OF_THE_SIGNATURE = frozenset(
    ["authorization", "x-amz-date", "date", "x-amz-security-token", "x-amz-content-sha256"]
)
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_AWS_HOST = re.compile(r"s3[.-]([a-z0-9-]+)\.(amazonaws\.com(?:\.cn)?)")

Body = AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request to be sent on. payload: the value of x-amz-content-sha256. length_bytes: of the
    body; None: chunked.
    """

    method: str
    target: Target
    headers: Mapping[str, str]
    payload: str = UNSIGNED
    body: Body | None = None
    length_bytes: int | None = None

    def with_body(self, body: Body) -> Outgoing:
        return replace(self, body=body)


class Relay:
    """The gateway's own way to the origin. access: endpoint and credentials, as they are now."""

    def __init__(self, access: Callable[[], Awaitable[S3Access]], metrics: Metrics) -> None:
        self._access = access
        self._metrics = metrics
        self._count = 0
        self._regions: dict[str, str] = {}
        self._sessions: dict[bool, ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    @asynccontextmanager
    async def open(self, outgoing: Outgoing, operation: str) -> AsyncIterator[ClientResponse]:
        """Send it; the origin's answer, whose body may be read within the block.

        Raises:
            OriginError: no answer came. S3Error: MAX_REQUEST_COUNT are under way.
        """
        if self._count >= MAX_REQUEST_COUNT:
            raise slow_down(f"{MAX_REQUEST_COUNT} requests are being passed to the origin")
        self._count += 1
        status = "error"
        try:
            access = await self._access()
            endpoint, region = await self._place(access, outgoing.target.bucket)
            async with self._request(access, endpoint, region, outgoing) as answer:
                status = str(answer.status)
                yield answer
        except (ClientError, TimeoutError, BotoCoreError) as error:
            why = str(error) or type(error).__name__
            raise OriginError(f"{operation}: no answer from the origin: {why}") from error
        finally:
            self._count -= 1
            self._metrics.origin_requests.labels(_word(operation), status).inc()

    @asynccontextmanager
    async def _request(
        self, access: S3Access, endpoint: str, region: str, outgoing: Outgoing
    ) -> AsyncIterator[ClientResponse]:
        headers = forwarded(outgoing.headers, _OF_THE_SIGNATURE)
        query = tuple(pair for pair in outgoing.target.query if not is_auth(pair[0]))
        if outgoing.length_bytes is not None:
            headers["Content-Length"] = str(outgoing.length_bytes)
        headers["Host"] = urlsplit(endpoint).netloc
        sign(outgoing, query, headers, access, region)
        wire = wire_query(query)
        url = URL(f"{endpoint}{outgoing.target.path}{'?' if wire else ''}{wire}", encoded=True)
        async with self._session(access, streams=outgoing.body is not None).request(
            outgoing.method,
            url,
            headers=headers,
            data=outgoing.body,
            allow_redirects=False,
            skip_auto_headers=_AUTOMATIC,
        ) as answer:
            yield answer

    def _session(self, access: S3Access, *, streams: bool) -> ClientSession:
        session = self._sessions.get(streams)
        if session is None:
            connector = (
                TCPConnector(limit=MAX_REQUEST_COUNT, force_close=True, ssl=access.tls)
                if streams
                else TCPConnector(
                    limit=MAX_REQUEST_COUNT, keepalive_timeout=KEEP_IDLE_S, ssl=access.tls
                )
            )
            session = self._sessions[streams] = ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=DummyCookieJar(),
                timeout=ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
                read_bufsize=_READ_BYTES,
                max_line_size=16 << 10,
                max_field_size=16 << 10,
            )
        return session

    async def _place(self, access: S3Access, bucket: str) -> tuple[str, str]:
        """Endpoint and region of a bucket."""
        parts = urlsplit(access.endpoint_url)
        endpoint = f"{parts.scheme}://{parts.netloc}"
        aws = _AWS_HOST.fullmatch(parts.netloc)
        if aws is None or not bucket:
            return endpoint, access.region
        region = self._regions.get(bucket)
        if region is None:
            ask = Outgoing("HEAD", Target(bucket, "", (), f"/{bucket}"), {})
            async with self._request(access, endpoint, access.region, ask) as answer:
                region = answer.headers.get("x-amz-bucket-region")
            if region is None:
                return endpoint, access.region  # not known yet: the next request asks again
            if len(self._regions) >= MAX_BUCKET_COUNT:
                self._regions.clear()
            self._regions[bucket] = region
        return f"{parts.scheme}://s3.{region}.{aws[2]}", region


def forwarded(headers: Mapping[str, str], own: frozenset[str]) -> CIMultiDict[str]:
    """The fields that go on to the other side, but for `own`, those that are said anew there;
    Content-Length is set where there is a body.
    """
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in _OF_ONE_CONNECTION | own and name.lower() != "content-length"
    )


def sign(
    outgoing: Outgoing, query: Pairs, headers: CIMultiDict[str], access: S3Access, region: str
) -> None:
    """Add the fields of a signature; nothing for an anonymous origin."""
    headers["x-amz-content-sha256"] = outgoing.payload
    if access.credentials is None:
        return
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers["x-amz-date"] = time
    if access.credentials.token:
        headers["x-amz-security-token"] = access.credentials.token
    signed = {
        name.lower(): ",".join(headers.getall(name))
        for name in headers
        if name.lower() in ("host", "content-md5", "content-type")
        or name.lower().startswith("x-amz-")
    }
    scope = Scope(time[:8], region)
    signable = Signable(outgoing.method, outgoing.target.path, query, signed, outgoing.payload)
    signature = signable.signature(scope.key(access.credentials.secret_key), time, scope)
    headers["Authorization"] = (
        f"{ALGORITHM} Credential={access.credentials.access_key}/{scope}, "
        f"SignedHeaders={signable.signed_headers}, Signature={signature}"
    )


def _word(operation: str) -> str:
    """The operation as a metric's label: as the other requests to the origin are counted."""
    return {"HeadObject": "head", "GetObject": "get"}.get(
        operation, "list" if operation.startswith("ListObject") else "pass"
    )
