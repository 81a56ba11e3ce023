"""The admin port: is the node alive, is it ready, and its numbers.

`/livez` answers 200 while the event loop runs; `/readyz` 200 while the node serves, 503 while it
starts or drains; `/metrics` is Prometheus's text format.
"""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cachesvc.metrics import Metrics


class Admin:
    """The admin server of one node. `ready` is set by the composition root."""

    def __init__(self, metrics: Metrics) -> None:
        self.ready = False
        self._metrics = metrics
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError if the address cannot be had."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self.ready:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="starting or draining\n")

    async def _render(self, _request: web.Request) -> web.Response:
        text = generate_latest(self._metrics.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
