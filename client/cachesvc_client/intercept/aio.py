"""Interception of aiobotocore's clients, s3fs among them.

Rules: as `sync`, with aiobotocore's response and, for what it reads from, the few things that it
asks of aiohttp's. The event loop waits for nothing: the cache is asked on threads.
"""

from __future__ import annotations

import time
from typing import Any

from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.httpsession import AIOHTTPSession
from aiohttp.client_exceptions import ClientConnectionError
from botocore.exceptions import BotoCoreError, ClientError

from cachesvc_client.drive import run_awaiting
from cachesvc_client.intercept.answer import Answer, AskS3, Blocking, answering
from cachesvc_client.intercept.interceptor import Interceptor, ours
from cachesvc_client.intercept.request import Passed
from cachesvc_client.intercept.shadow import Comparison
from cachesvc_client.intercept.source import Source
from cachesvc_client.intercept.stats import STATS
from cachesvc_client.intercept.stream import Stream
from cachesvc_client.threads import Threads


def reads_by_aiohttp(client: Any) -> bool:
    """Whether its bodies are those of aiohttp, and not of httpx."""
    return issubclass(
        getattr(client.meta.config, "http_session_cls", AIOHTTPSession), AIOHTTPSession
    )


class AioInterceptor(Interceptor):
    """Beside one client of aiobotocore."""

    async def before_send(self, request: Any, **_: Any) -> AioAWSResponse | None:
        """The answer from the cache; None: S3 is to be asked."""
        try:
            wanted = self.look(request)
            if wanted is None:
                return None
            shared = self.interception
            try:
                steps = answering(wanted, shared.table, shared.refusals, shared.cache)
                answer = await run_awaiting(steps, self._perform)
            except Passed as why:
                self.leave(wanted, str(why))
                return None
            return self._response(request, answer)
        except Exception as error:
            STATS.fault(error)
            return None

    async def after_write(self, context: Any, **_: Any) -> None:
        """A write has come to its end, well or not."""
        try:
            names = self.written(context)
            if names:
                await self.interception.threads.run(self.forget, names)
        except Exception as error:
            STATS.fault(error)

    async def _perform(self, effect: AskS3 | Blocking) -> Any:
        if isinstance(effect, Blocking):
            return await self.interception.threads.run(effect.work)
        try:
            with ours():
                said = await getattr(self.client, effect.operation)(**effect.parameters)
                if "Body" in said:
                    await said["Body"].read()
        except ClientError:
            return None
        except BotoCoreError as error:
            raise Passed("unreachable") from error
        return said["ResponseMetadata"]["HTTPHeaders"]

    def _response(self, request: Any, answer: Answer) -> AioAWSResponse:
        raw: Any = AioRaw(request.url, None)
        if answer.pinned is not None and answer.stream is not None:
            source, threads = Source(answer.pinned, self.interception), self.interception.threads
            raw = AioRaw(request.url, AioContent(self.client, source, answer.stream, threads))
        STATS.answered(answer.came)
        return AioAWSResponse(request.url, answer.status, answer.headers, raw)

    def beside(self, raw: Any, comparison: Comparison) -> Any:
        if not hasattr(raw, "content"):
            raise TypeError(f"{type(raw).__name__} is no response of aiohttp")
        return ComparedRaw(raw, comparison, self.interception.threads)


class AioContent:
    """What stands for aiohttp's StreamReader. client: of aiobotocore, for what the cache loses."""

    def __init__(self, client: Any, source: Source, stream: Stream, threads: Threads) -> None:
        self._client = client
        self._source = source
        self._stream = stream
        self._threads = threads
        self._closed = self._waited_for = False

    async def read(self, amount: int = -1) -> bytes:
        """As many bytes, all if negative, fewer only at the end. Raises ClientConnectionError; and
        RuntimeError, as aiohttp does, if another task waits for bytes of this body.
        """
        if self._closed:
            raise ClientConnectionError("Connection closed")
        if self._waited_for:
            raise RuntimeError("read() called while another coroutine is already waiting for data")
        limit = None if amount < 0 else amount
        missing = self._stream.missing(limit)
        if not missing:
            return self._stream.take(limit)
        self._waited_for = True
        try:
            fetched = await self._fetch(*missing)
        finally:
            self._waited_for = False
        return self._stream.take(limit, fetched)

    def at_eof(self) -> bool:
        return self._stream.over

    def close(self) -> None:
        """What is left is read no more."""
        self._closed = not self._stream.over
        self._stream.drop()

    async def _fetch(self, start: int, end: int) -> bytes:
        data = await self._threads.run(self._source.cached, start, end)
        if data is not None:
            return data
        try:
            with ours():
                answer = await self._client.get_object(**self._source.parameters(start, end))
                async with answer["Body"] as body:
                    return self._source.whole(await body.read(), start, end)
        except Exception as error:
            raise ClientConnectionError(
                f"{self._source.name}: the cache lost the rest of version {self._source.etag},"
                f" and S3 does not give it: {error}"
            ) from error


class AioRaw:
    """What stands for aiohttp's ClientResponse; content None: there is no body."""

    def __init__(self, url: str, content: AioContent | None) -> None:
        self.url = url
        self.content = content
        self.closed = False

    async def read(self) -> bytes:
        """All of the body."""
        return b"" if self.content is None else await self.content.read()

    def close(self) -> None:
        self.closed = True
        if self.content is not None:
            self.content.close()

    release = close

    async def __aenter__(self) -> AioRaw:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class ComparedRaw:
    """aiohttp's response of S3, with every byte that is read of its content compared."""

    def __init__(self, raw: Any, comparison: Comparison, threads: Threads) -> None:
        self._raw = raw
        self.content = _ComparedContent(raw.content, comparison, threads)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class _ComparedContent:
    def __init__(self, content: Any, comparison: Comparison, threads: Threads) -> None:
        self._content = content
        self._comparison = comparison
        self._threads = threads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def read(self, amount: int = -1) -> bytes:
        """As the content's own."""
        began = time.monotonic()
        data: bytes = await self._content.read(amount)
        await self._threads.run(self._comparison.feed, data, time.monotonic() - began)
        return data
