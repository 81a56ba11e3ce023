"""Interception of botocore's own clients: boto3, s3transfer.

Rules: what the caller gets is botocore's AWSResponse around urllib3's HTTPResponse, as ever, so
that parsing, checksums and bodies are botocore's affair; only what urllib3 reads from is ours.
"""

from __future__ import annotations

import io
import time
from threading import Lock
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import ProtocolError
from urllib3.response import HTTPResponse

from cachesvc_client.drive import run
from cachesvc_client.intercept.answer import Answer, AskS3, Blocking, answering
from cachesvc_client.intercept.interceptor import Interceptor, ours
from cachesvc_client.intercept.request import Passed
from cachesvc_client.intercept.shadow import Comparison
from cachesvc_client.intercept.source import Source
from cachesvc_client.intercept.stats import STATS
from cachesvc_client.intercept.stream import Stream


class SyncInterceptor(Interceptor):
    """Beside one client of botocore."""

    def before_send(self, request: Any, **_: Any) -> AWSResponse | None:
        """The answer from the cache; None: S3 is to be asked."""
        try:
            wanted = self.look(request)
            if wanted is None:
                return None
            shared = self.interception
            try:
                steps = answering(wanted, shared.table, shared.refusals, shared.cache)
                answer = run(steps, self._perform)
            except Passed as why:
                self.leave(wanted, str(why))
                return None
            return self._response(request, answer)
        except Exception as error:
            STATS.fault(error)
            return None

    def after_write(self, context: Any, **_: Any) -> None:
        """A write has come to its end, well or not."""
        try:
            self.forget(self.written(context))
        except Exception as error:
            STATS.fault(error)

    def _perform(self, effect: AskS3 | Blocking) -> Any:
        if isinstance(effect, Blocking):
            return effect.work()
        try:
            with ours():
                said = getattr(self.client, effect.operation)(**effect.parameters)
                if "Body" in said:
                    said["Body"].read()
        except ClientError:
            return None
        except BotoCoreError as error:
            raise Passed("unreachable") from error
        return said["ResponseMetadata"]["HTTPHeaders"]

    def _response(self, request: Any, answer: Answer) -> AWSResponse:
        body: Any = io.BytesIO()
        if answer.pinned is not None and answer.stream is not None:
            body = CacheBody(self.client, Source(answer.pinned, self.interception), answer.stream)
        raw = _as_raw(body, answer, request.method)
        STATS.answered(answer.came)
        return AWSResponse(request.url, answer.status, answer.headers, raw)

    def beside(self, raw: Any, comparison: Comparison) -> Any:
        return _as_raw(ComparedBody(raw, comparison))


def _as_raw(body: Any, answer: Answer | None = None, method: str = "GET") -> HTTPResponse:
    return HTTPResponse(
        body=body,
        headers=answer.headers if answer else None,
        status=answer.status if answer else 200,
        preload_content=False,
        decode_content=False,
        enforce_content_length=False,
        request_method=method,
    )


class CacheBody:
    """What urllib3 reads instead of a connection. client: of botocore, for what the cache loses.

    Threads may share one, as they may share a socket's file: each byte is handed out once.
    """

    def __init__(self, client: Any, source: Source, stream: Stream) -> None:
        self._client = client
        self._source = source
        self._stream = stream
        self._lock = Lock()
        self._ended = False
        self.closed = False

    def read(self, amount: int | None = None) -> bytes:
        """As many bytes, fewer only at the end. Raises ProtocolError, as a cut connection does."""
        with self._lock:
            if self.closed:
                return b""
            missing = self._stream.missing(amount)
            fetched = self._fetch(*missing) if missing else b""
            data = self._stream.take(amount, fetched)
            self._ended = self._stream.over
            return data

    def read1(self, amount: int = -1) -> bytes:
        return self.read(None if amount < 0 else amount)

    def isclosed(self) -> bool:
        """As http.client: closed, or read to the end; an empty body too has to be read."""
        return self.closed or self._ended

    def close(self) -> None:
        self.closed = True
        self._stream.drop()

    def flush(self) -> None:
        """Nothing: urllib3 asks for it when it closes."""

    @property
    def fp(self) -> CacheBody:
        return self  # botocore's set_socket_timeout goes fp.raw._sock; there is no socket here

    raw = _sock = fp

    def settimeout(self, _timeout: float | None) -> None:
        """Nothing: the cache has limits of its own."""

    def _fetch(self, start: int, end: int) -> bytes:
        data = self._source.cached(start, end)
        if data is not None:
            return data
        try:
            with ours():
                answer = self._client.get_object(**self._source.parameters(start, end))
                return self._source.whole(answer["Body"].read(), start, end)
        except Exception as error:
            raise ProtocolError(
                f"Connection broken: {self._source.name}: the cache lost the rest of version"
                f" {self._source.etag}, and S3 does not give it: {error}",
                error,
            ) from error


class ComparedBody:
    """urllib3's body of S3's answer, with every byte that is read of it compared."""

    def __init__(self, raw: Any, comparison: Comparison) -> None:
        self._raw = raw
        self._comparison = comparison

    @property
    def closed(self) -> bool:
        return bool(self._raw.closed)

    def isclosed(self) -> bool:
        return bool(self._raw.closed)

    def read(self, amount: int | None = None) -> bytes:
        began = time.monotonic()
        data: bytes = self._raw.read(amount)
        self._comparison.feed(data, time.monotonic() - began)
        return data

    def read1(self, amount: int = -1) -> bytes:
        return self.read(None if amount < 0 else amount)

    def close(self) -> None:
        self._raw.close()

    def flush(self) -> None:
        """Nothing: urllib3 asks for it when it closes."""

    @property
    def fp(self) -> Any:
        return self._raw._fp.fp
