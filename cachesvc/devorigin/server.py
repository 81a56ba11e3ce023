"""A folder as an S3 endpoint, with latency and faults: for the demo, the tests and the benchmarks.

Rules
- For development only: no signature is checked, nothing is synced to disk, user metadata is not
  kept.
- ROOT/<bucket>/<key>: any folder of folders works as it is.
- Path style only. Every answer is exact, unless a fault was asked for.

Story: `DevOrigin` runs the endpoint on a thread of its own for tests and the demo; `run` is the
process behind `cachesvc devorigin`. Both drive a `_Listener`: aiohttp's low-level server in front
of a `Service`, which answers out of a `Folder`.

`/_devorigin/requests` (GET: the log as JSON, DELETE: clear it) and `/_devorigin/faults` (PUT: a
JSON list of the fields of `Fault`) do for another process what the attributes of `DevOrigin` do for
this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp.web import BaseRequest, RequestHandler, Server, StreamResponse

from cachesvc.devorigin.faults import Fault, FaultPlan, Shape
from cachesvc.devorigin.folder import Folder
from cachesvc.devorigin.log import LoggedRequest, RequestLog
from cachesvc.devorigin.service import Service

__all__ = ["DevOrigin", "Fault", "LoggedRequest", "Shape", "run", "serve"]

_NO_SHAPE = Shape()
_LOG_LIMIT = 100_000
_BACKLOG = 1024
_MAX_LINE_BYTES = 64 << 10  # a prefix, a start-after and a token of 1,024 bytes, percent-encoded
_CLOSE_TIMEOUT_S = 0.05
_CLOSE_TURNS = 20
_THREADS = 8


class DevOrigin:
    """The endpoint on a thread and an event loop of its own.

    root: the folder of the buckets. port: 0 takes a free one. log_limit: requests kept. seed: of
    faults and latencies. Making it does nothing; `start` listens. Also a context manager.
    """

    def __init__(
        self,
        root: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        shape: Shape = _NO_SHAPE,
        log_limit: int = _LOG_LIMIT,
        seed: int = 0,
    ) -> None:
        self._folder = Folder(root)
        self._log = RequestLog(log_limit)
        self._seed = seed
        self._service = Service(self._folder, shape, self._log, seed)
        self._listener = _Listener(self._service, host, port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Return when listening.

        Raises:
            OSError: the address can't be listened on.
        """
        if self._thread is not None:
            raise RuntimeError("this DevOrigin is running already")
        self._started.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._run, name="devorigin", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            self._thread = None
            raise self._failure

    def stop(self) -> None:
        """Drop all connections, free the port and the thread. Again is allowed."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> DevOrigin:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """`http://host:port`, once started."""
        return self._listener.url

    @property
    def requests(self) -> list[LoggedRequest]:
        """The requests so far in order of arrival, those being served among them."""
        return self._log.snapshot()

    def clear_log(self) -> None:
        """Forget the requests so far."""
        self._log.clear()

    @property
    def faults(self) -> Sequence[Fault]:
        """The faults in force. Setting them, from any thread, starts their counts and dice anew."""
        return self._service.plan.faults

    @faults.setter
    def faults(self, faults: Sequence[Fault]) -> None:
        self._service.plan = FaultPlan(faults, self._seed)

    @property
    def shape(self) -> Shape:
        """Latency and bandwidth; may be set from any thread, for requests that come after."""
        return self._service.shape

    @shape.setter
    def shape(self, shape: Shape) -> None:
        self._service.shape = shape

    def put(self, bucket: str, key: str, data: bytes | memoryview) -> str:
        """Write an object, in one step for all readers, and return its ETag.

        The bucket is made if it isn't there. No request is logged.
        """
        self._folder.create_bucket(bucket)
        with self._folder.upload(bucket) as upload:
            upload.write(data)
            return self._folder.commit(upload, bucket, key)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            await self._listener.open()
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._started.set()
        try:
            await self._stopping.wait()
        finally:
            await self._listener.close()


async def serve(root: Path, host: str, port: int, shape: Shape = _NO_SHAPE) -> None:
    """Serve on the running loop until cancelled; prints `ready` when listening.

    Raises:
        NotADirectoryError: root is no folder.
        OSError: the address can't be listened on.
    """
    listener = _Listener(Service(Folder(root), shape, RequestLog(_LOG_LIMIT), 0), host, port)
    await listener.open()
    try:
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        await listener.close()


def run(root: Path, host: str, port: int, shape: Shape) -> int:
    """The process: serve until SIGTERM or SIGINT, and return the exit code.

    0 after a signal; 1, with a line on stderr, where the root or the address can't be served.
    """

    async def until_signal() -> None:
        serving = asyncio.ensure_future(serve(root, host, port, shape))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, serving.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(until_signal())
    except NotADirectoryError as error:
        print(f"cachesvc: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        print(
            f"cachesvc: cannot listen on {host}:{port}: {reason}: choose another address",
            file=sys.stderr,
        )
        return 1
    return 0


class _Listener:
    """The listening socket and its connections, on the running loop."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        self._service = service
        self._host = host
        self._port = port
        self._bound_port = port
        self._web: _Connections | None = None
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._bound_port}"

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="devorigin"))
        self._web = _Connections(self._service.handle)
        self._server = await loop.create_server(
            self._web, self._host, self._port, backlog=_BACKLOG, family=_family(self._host)
        )
        self._bound_port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is None or self._web is None:
            return
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(_CLOSE_TURNS):  # asyncio leaks what it accepts while its server closes
            await asyncio.sleep(0)
            self._web.abort()
        self._server.close()
        await self._web.shutdown(_CLOSE_TIMEOUT_S)
        await self._server.wait_closed()


class _Connections(Server):
    """aiohttp's server, knowing its transports until they are really closed."""

    def __init__(self, handler: Callable[[BaseRequest], Awaitable[StreamResponse]]) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
        )
        self._transports: dict[RequestHandler, asyncio.Transport] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._transports[handler] = transport

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._transports.pop(handler, None)

    def abort(self) -> None:
        """Drop all connections; what they had not yet sent is lost."""
        for transport in list(self._transports.values()):
            transport.abort()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
