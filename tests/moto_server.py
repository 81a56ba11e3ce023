"""moto, an S3 of somebody else's, in the test's process: without what it does for each request that
no test needs, a log line and a look through its own folder, which is most of its time; and without
the half second that the server's thread may take to notice that it shall end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from unittest.mock import patch

POLL_S = 0.02


@contextmanager
def running_moto() -> Iterator[str]:
    """Its address."""
    from moto import backends
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import BaseWSGIServer

    log = logging.getLogger("werkzeug")
    known = list(backends.list_of_moto_modules())
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with (
        patch.object(backends, "list_of_moto_modules", lambda: known),
        patch.object(
            BaseWSGIServer, "serve_forever", partialmethod(BaseWSGIServer.serve_forever, POLL_S)
        ),
    ):
        before = log.level
        log.setLevel(logging.WARNING)
        server.start()
        host, port = server.get_host_and_port()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.stop()
            log.setLevel(before)
