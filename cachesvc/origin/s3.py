"""S3, and what speaks like it, as an Origin.

Rules
- Limits, all named in S3Settings: `max_gets` fill threads, so that many GETs at a time; attempts,
  and a retry budget over all of them. Who calls bounds how many fetches wait (coalescer.py).
- A failed attempt is repeated after a random pause (full jitter), but not once `patience_ms` have
  passed. Attempts and patience count from zero again once an attempt has landed PROGRESS_BYTES,
  because a connection that is cut every few MiB is slow and not broken; the budget still bounds
  them all, and no attempt begins once the fetch as a whole is slower than LEAST_BYTES_PER_S.
- When `fetch` has returned or raised, no thread touches the sink any more, also when it was
  cancelled.
- Proxies of the environment (HTTPS_PROXY) are ignored, by HEAD, LIST and GET alike.

Story: aiobotocore heads, lists, streams bypasses and signs, on the event loop, with its own retries
switched off. A fetch signs (signing.py), hands a Transfer (fetch.py) to a fill thread for one GET
at a time, and decides between two attempts: done, again, a new signature, or an error (blame.py).
The loop never waits for a socket, a thread never decides.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from aiobotocore.session import get_session

from cachesvc.aside import let_go
from cachesvc.core.errors import (
    AccessDenied,
    NotCacheable,
    ObjectChanged,
    OriginError,
    Overloaded,
)
from cachesvc.core.request import LEAST_BYTES_PER_S
from cachesvc.core.types import ByteRange, ObjectName, ObjectVersion
from cachesvc.metrics import Metrics
from cachesvc.origin import blame, bypass
from cachesvc.origin.access import Credentials, S3Access
from cachesvc.origin.base import BypassStream, Listing, ProbeSink, Sink
from cachesvc.origin.budget import RetryBudget, backoff_ms
from cachesvc.origin.connections import Connections
from cachesvc.origin.fetch import Outcome, Result, Transfer
from cachesvc.origin.probe import Heard, ProbeTransfer
from cachesvc.origin.s3_client import (
    MAX_STREAM_COUNT,
    S3Settings,
    open_client,
    tls_context,
)
from cachesvc.origin.signing import Signer

__all__ = ["S3Origin", "S3Settings"]

PROGRESS_BYTES = 64 << 10
BACKOFF_BASE_MS = 50.0
BACKOFF_CAP_MS = 2_000.0
COMPLAINT_INTERVAL_MS = 10_000  # between two log lines about an origin that fails
_ANY_NAME = ObjectName("bucket", "key")
LIST_MAX_COUNT = 1_000  # S3's own limit for a page

log = structlog.get_logger(__name__)


class S3Origin:
    """An `origin.base.Origin` over S3. Belongs to one event loop; opens nothing before `start` or
    the first call.

    heard: told of every HEAD that is answered, and of every probe before its sink is told of the
    version: the version, all header fields, the monotonic time when it was asked (or shortly
    before), and whether it was asked for checksums, too. Called on the loop.
    """

    age_share = 0.0

    def __init__(
        self,
        settings: S3Settings,
        metrics: Metrics,
        budget: RetryBudget | None = None,
        heard: Heard | None = None,
    ) -> None:
        self._settings = settings
        self._heard = heard
        self._metrics = metrics
        self._budget = budget or RetryBudget(now_ms=_now_ms())
        self._signer = Signer(settings.max_signed_urls)
        self._exits = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._threads = ThreadPoolExecutor(settings.max_gets, thread_name_prefix="fill")
        self._transfers: set[Transfer] = set()
        self._stream_count = 0
        self._call_limit_s = (settings.connect_timeout_ms + 2 * settings.read_timeout_ms) / 1000
        self._session = get_session()
        self._tls: ssl.SSLContext | None = None
        self._client: Any = None
        self._connections: Connections | None = None
        self._endpoint = settings.endpoint_url or "AWS S3"
        self._closed = False
        self._quiet_until_ms = 0.0

    async def start(self) -> None:
        """Make the client now rather than at the first call. Does no network I/O by itself."""
        await self._ready()

    async def check_credentials(self) -> None:
        """Sign something, which asks nobody but who gives the credentials. Raises NoCredentials, or
        OriginError if they do not come.
        """
        try:
            await self._signer.url(await self._ready(), _ANY_NAME)
        except blame.CALL_ERRORS as error:
            raise blame.of_exception(error, self._endpoint, "", self._endpoint) from error

    async def head(self, name: ObjectName, _max_age_s: float = 0.0) -> ObjectVersion:
        """See `Origin.head`."""
        client = await self._ready()
        wanted, asked_at = {"Bucket": name.bucket, "Key": name.key}, time.monotonic()
        if self._heard is not None:
            wanted["ChecksumMode"] = "ENABLED"
        answer = await self._call(
            "head", str(name), name.bucket, lambda: client.head_object(**wanted)
        )
        version = bypass.version_of(name, answer, answer.get("ContentLength"))
        if self._heard is not None:
            self._heard(version, answer["ResponseMetadata"]["HTTPHeaders"], asked_at, True)
        return version

    async def access(self) -> S3Access:
        """How to reach the same S3 by other means, with credentials that are good now.

        Raises: NoCredentials; what botocore raises where it finds half of them.
        """
        client = await self._ready()
        assert self._tls is not None
        credentials = None
        if not self._settings.anonymous:
            found = await self._session.get_credentials()
            if found is None:
                raise blame.no_credentials(self._endpoint)
            frozen = await found.get_frozen_credentials()
            credentials = Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")
        return S3Access(self._endpoint, client.meta.region_name, credentials, self._tls)

    async def list(
        self, bucket: str, prefix: str, delimiter: str, token: str | None, limit_count: int
    ) -> Listing:
        """See `Origin.list`."""
        client = await self._ready()
        wanted: dict[str, Any] = {
            "Bucket": bucket,
            "MaxKeys": max(1, min(limit_count, LIST_MAX_COUNT)),
        }
        given = {"Prefix": prefix, "Delimiter": delimiter, "ContinuationToken": token}
        wanted.update((key, value) for key, value in given.items() if value)
        what = f"s3://{bucket}/{prefix}"
        answer = await self._call("list", what, bucket, lambda: client.list_objects_v2(**wanted))
        next_token = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
        if answer.get("IsTruncated") and not next_token:
            raise OriginError(f"{what}: the origin {self._endpoint} cut a listing short, no token")
        return Listing(
            [
                bypass.version_of(ObjectName(bucket, entry["Key"]), entry, entry.get("Size"))
                for entry in answer.get("Contents", ())
            ],
            [entry["Prefix"] for entry in answer.get("CommonPrefixes", ())],
            next_token,
        )

    @asynccontextmanager
    async def stream(
        self, name: ObjectName, start: int, end: int | None
    ) -> AsyncIterator[BypassStream]:
        """See `Origin.stream`. One more HEAD where S3 has no answer for an empty range."""
        client = await self._ready()
        if self._stream_count >= MAX_STREAM_COUNT:
            raise Overloaded(f"{name}: {MAX_STREAM_COUNT} uncached reads are under way, the most")

        async def get(http_range: str | None) -> dict[str, Any]:
            wanted = {"Bucket": name.bucket, "Key": name.key}
            if http_range is not None:
                wanted["Range"] = http_range
            answer: dict[str, Any] = await self._call(
                "get", str(name), name.bucket, lambda: client.get_object(**wanted)
            )
            return answer

        self._stream_count += 1
        body = None
        try:
            opened, body = await bypass.open_stream(self.head, get, name, start, end)
            yield opened
        finally:
            self._stream_count -= 1
            if body is not None:
                self._metrics.origin_bytes.inc(body.received_bytes)
                body.close()

    async def fetch(self, version: ObjectVersion, wanted: ByteRange, sink: Sink) -> None:
        """See `Origin.fetch`. Also raises NotCacheable for a version without a strong ETag."""
        if not version.cacheable:
            raise NotCacheable(f"{version.name}: ETag {version.etag!r} is not strong: use a bypass")
        await self._transferred(lambda *how: Transfer(version, wanted, sink, *how))

    async def probe(
        self, name: ObjectName, wanted: ByteRange, sink: ProbeSink, _max_age_s: float = 0.0
    ) -> bool:
        """See `Origin.probe`."""
        heard = self._heard and self._hopping(self._heard)
        return await self._transferred(
            lambda *how: ProbeTransfer(name, wanted, sink, *how, heard=heard)
        )

    @staticmethod
    def _hopping(heard: Heard) -> Heard:
        """The same from another thread."""
        loop = asyncio.get_running_loop()
        return lambda *what: loop.call_soon_threadsafe(heard, *what)

    async def _transferred(self, make: Callable[[Connections, int], Transfer]) -> bool:
        client = await self._ready()
        assert self._connections is not None
        transfer = make(self._connections, self._settings.read_timeout_ms)
        self._transfers.add(transfer)
        try:
            return await self._fetch(client, transfer)
        finally:
            self._transfers.discard(transfer)

    async def close(self) -> None:
        """Give back connections and threads. Fetches under way fail with OriginError."""
        self._closed = True
        for transfer in self._transfers:
            transfer.stop()
        await asyncio.to_thread(self._threads.shutdown, True, cancel_futures=True)
        if self._connections is not None:
            self._connections.close()
        await self._exits.aclose()
        self._client = None

    async def _fetch(self, client: Any, transfer: Transfer) -> bool:
        """Whether all has landed; False: a probe proved nothing."""
        name = transfer.version.name
        failures, resigned = 0, False
        began_ms = good_ms = _now_ms()
        self._budget.request(_now_ms())
        while True:
            try:
                url, fresh = await self._signer.url(client, name)
            except blame.CALL_ERRORS as error:
                raise blame.of_exception(error, str(name), name.bucket, self._endpoint) from error
            before_bytes = transfer.landed_bytes
            outcome = await self._attempt(transfer, url)
            self._count("get", outcome.status)
            self._metrics.origin_bytes.inc(outcome.received_bytes)
            if outcome.result in (Result.DONE, Result.UNPROVEN):
                return outcome.result is Result.DONE
            if outcome.result is Result.CHANGED:
                raise ObjectChanged(
                    f"{name}: version {transfer.version.etag} is gone from the origin:"
                    f" {outcome.detail or 'it was overwritten'}; ask for the version again"
                )
            if outcome.result is Result.STOPPED:
                why = "the origin was closed" if self._closed else "nobody wants the bytes any more"
                raise OriginError(f"{name}: the fetch was stopped: {why}")
            if outcome.status in blame.RESIGNED_STATUS and not resigned:
                resigned = True
                if await self._sign_anew(name, outcome, fresh):
                    continue
            due_ms = began_ms + transfer.landed_bytes * 1000 / LEAST_BYTES_PER_S
            if transfer.landed_bytes - before_bytes >= PROGRESS_BYTES:
                failures, good_ms = 0, min(_now_ms(), due_ms)
            failures += 1
            await self._pause_or_raise(transfer, outcome, failures, good_ms)

    async def _attempt(self, transfer: Transfer, url: str) -> Outcome:
        """One GET in a fill thread. Comes back, cancelled or not, only when the thread has let go
        of the sink.
        """
        if self._closed:
            return Outcome(Result.STOPPED, 0, "", "", 0)
        work = self._threads.submit(transfer.attempt, url)
        try:
            await let_go(work, transfer.stop)
        except asyncio.CancelledError:
            if not work.cancelled() and work.exception() is None:
                self._count("get", work.result().status)
                self._metrics.origin_bytes.inc(work.result().received_bytes)
            raise
        return Outcome(Result.STOPPED, 0, "", "", 0) if work.cancelled() else work.result()

    async def _sign_anew(self, name: ObjectName, outcome: Outcome, fresh: bool) -> bool:
        """Whether a new signature is worth a try: the old one was kept for a while, or was for
        another region.
        """
        self._signer.forget(name)
        if outcome.status == 403:
            return not fresh
        await self.head(name)  # the client learns the bucket's region
        return True

    async def _pause_or_raise(
        self, transfer: Transfer, outcome: Outcome, failures: int, good_ms: float
    ) -> None:
        """Wait before the next attempt; raises when there shall be none."""
        name = transfer.version.name
        refused = outcome.result is Result.REFUSED
        if refused:
            error = blame.of_status(
                outcome.status,
                outcome.error,
                outcome.detail,
                str(name),
                name.bucket,
                self._endpoint,
            )
        else:
            error = OriginError(
                f"{name}: bytes [{transfer.wanted.start}, {transfer.wanted.end}) did not come from"
                f" the origin {self._endpoint}: {outcome.detail}"
            )
        if refused and outcome.status not in blame.RETRIED_STATUS:
            self._complain(error)
            raise error
        await self._pause(failures, good_ms, error)

    async def _pause(self, failures: int, good_ms: float, error: Exception) -> None:
        given_up = (
            failures >= self._settings.attempts or _now_ms() - good_ms >= self._settings.patience_ms
        )
        if given_up or not self._budget.take(_now_ms()):
            self._complain(error)
            raise error
        self._metrics.origin_retries.inc()
        pause_ms = backoff_ms(failures, BACKOFF_BASE_MS, BACKOFF_CAP_MS, random.random())
        await asyncio.sleep(pause_ms / 1000)

    async def _call(
        self, op: str, what: str, bucket: str, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        """One call through aiobotocore, retried under the budget."""
        self._budget.request(_now_ms())
        failures, began_ms = 0, _now_ms()
        while True:
            try:
                async with asyncio.timeout(self._call_limit_s):
                    answer = await call()
            except blame.CALL_ERRORS as error:
                status = blame.status_of(error)
                if status or blame.may_pass(error):
                    self._count(op, status)
                mapped = blame.of_exception(error, what, bucket, self._endpoint)
                if status == 416:
                    raise bypass.NotSatisfiable from error
                if not blame.may_pass(error):
                    self._complain(mapped)
                    raise mapped from error
                failures += 1
                await self._pause(failures, began_ms, mapped)
            else:
                self._count(op, answer["ResponseMetadata"]["HTTPStatusCode"])
                return answer

    def _complain(self, error: Exception) -> None:
        """Tell the log now and then: readers may get along without us, and nobody would notice."""
        if isinstance(error, OriginError | AccessDenied) and _now_ms() >= self._quiet_until_ms:
            self._quiet_until_ms = _now_ms() + COMPLAINT_INTERVAL_MS
            log.warning("the origin fails", why=str(error))

    def _count(self, op: str, status: int) -> None:
        self._metrics.origin_requests.labels(op, str(status) if status else "error").inc()

    async def _ready(self) -> Any:
        if self._client is None:
            async with self._starting:
                if self._client is None:
                    await self._open()
        return self._client

    async def _open(self) -> None:
        if self._closed:
            raise OriginError(f"the origin {self._endpoint} was closed")
        client = await open_client(self._session, self._settings, self._exits)
        self._tls = tls_context(self._session.get_config_variable("ca_bundle"))
        self._connections = Connections(
            self._settings.connect_timeout_ms, self._settings.max_gets, self._tls
        )
        self._endpoint = client.meta.endpoint_url
        self._client = client


def _now_ms() -> float:
    return time.monotonic() * 1000
